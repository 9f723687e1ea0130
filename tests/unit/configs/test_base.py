"""YAML files, `extends`, `--set`, and what a mistake in any of them is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.base import ConfigError, UserError, apply_overrides, find_yaml, read_yaml
from configs.serving import ServeConfig
from configs.sweep import as_overrides
from configs.training import TrainConfig

plain = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)


def test_an_unknown_key_is_answered_by_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match=r"env.nam: unknown key. Did you mean 'name'"):
        TrainConfig.parse({"env": {"nam": "x"}})
    with pytest.raises(ConfigError, match=r"Did you mean 'rollout'"):
        TrainConfig.parse({}, ["rolout.workers=2"])


def test_an_unknown_key_inside_a_list_is_answered_by_the_keys_of_its_section() -> None:
    with pytest.raises(ConfigError, match=r"policies.0.replicas.max_replica: unknown key. Did you mean 'max_replicas'"):
        ServeConfig.parse({"policies": [{"model": "m", "replicas": {"max_replica": 2}}]})


def test_every_problem_of_a_file_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig.parse({"steps": 0, "nam": "x", "optimizer": {"lr": "fast"}}, source="my.yaml")
    message = str(caught.value)
    assert message.startswith("my.yaml does not fit TrainConfig:")
    for part in ("steps: ", "(got 0)", "nam: unknown key", "optimizer.lr: ", "(got 'fast')"):
        assert part in message


def test_overrides_come_after_the_file_and_know_exponents() -> None:
    config = TrainConfig.load("configs/train/tictactoe_tiny.yaml", ["optimizer.lr=1e-4", "steps=3"])
    assert (config.optimizer.lr, config.steps) == (1e-4, 3)


def test_an_exponent_without_a_point_is_a_number() -> None:
    assert apply_overrides({}, ["a=1e-4"]) == {"a": 1e-4}


def test_the_later_of_two_overrides_counts() -> None:
    assert apply_overrides({}, ["a.b=1", "a.b=2"]) == {"a": {"b": 2}}


def test_an_override_may_hold_an_equals_sign_and_structure() -> None:
    got = apply_overrides({}, ["a=b=c", "env.kwargs={split: train}", "space.x=[1, 2]"])
    assert got == {"a": "b=c", "env": {"kwargs": {"split": "train"}}, "space": {"x": [1, 2]}}


def test_overrides_change_a_copy() -> None:
    data = {"a": {"b": 1}}
    apply_overrides(data, ["a.b=2"])
    assert data == {"a": {"b": 1}}


def test_an_override_reaches_into_a_list_by_index() -> None:
    data = {"policies": [{"name": "a"}, {"name": "b"}]}
    assert apply_overrides(data, ["policies.1.name=c"])["policies"] == [{"name": "a"}, {"name": "c"}]
    with pytest.raises(ConfigError, match="'2' is no index of a list of 2 items"):
        apply_overrides(data, ["policies.2.name=c"])


@pytest.mark.parametrize(
    ("override", "advice"),
    [
        ("steps", "must look like section.key=value"),
        ("=3", "must look like section.key=value"),
        ("steps.x=1", "steps is a value, not a section"),
        ("steps.x.y=1", "'y' lies below a value|'x' lies below a value"),
    ],
)
def test_an_override_that_names_nothing_is_refused(override: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        apply_overrides({"steps": 3}, [override])


@given(plain)
def test_every_plain_value_survives_the_way_through_an_override(value: object) -> None:
    assert apply_overrides({}, as_overrides({"a.b": value})) == {"a": {"b": value}}


def test_a_config_that_extends_another_changes_what_it_names() -> None:
    base, longer = (TrainConfig.load(f"configs/train/tictactoe_{name}.yaml") for name in ("tiny", "long"))
    assert longer.steps > base.steps
    assert longer.optimizer.lr == base.optimizer.lr
    assert longer.model == base.model


def test_extending_what_is_not_there_or_itself_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("extends: b.yaml\n")
    with pytest.raises(ConfigError, match=r"a.yaml extends 'b.yaml', but there is no file"):
        TrainConfig.load(file)
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(ConfigError, match="extends itself"):
        TrainConfig.load(file)


@pytest.mark.parametrize(
    ("text", "advice"), [("a: [", "is not valid YAML"), ("- 1", "must hold a mapping of settings, but holds list")]
)
def test_a_file_that_is_no_configuration_says_what_it_is(text: str, advice: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=advice):
        read_yaml(file)


def test_a_missing_file_lists_what_ships() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean configs/train/tictactoe_tiny.yaml"):
        TrainConfig.load("configs/train/tictactoe_tini.yaml")


def test_a_shipped_file_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_yaml("configs/train/tictactoe_tiny.yaml") == find_yaml("train/tictactoe_tiny.yaml")


def test_what_a_user_can_mend_is_told_from_a_defect_by_its_type() -> None:
    assert issubclass(ConfigError, UserError)


def test_a_resolved_configuration_read_again_as_yaml_is_equal(tmp_path: Path) -> None:
    config = TrainConfig.load("configs/train/key_door_tiny.yaml")
    file = tmp_path / "resolved.yaml"
    file.write_text(config.to_yaml())
    assert TrainConfig.load(file) == config


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (
            {"kind": "vlm", "model": "m"},
            r"policies\.0\.kind: there is no kind 'vlm'\. Did you mean 'vllm'\? Kinds: vllm",
        ),
        ({"kind": ["vllm"], "model": "m"}, r"policies\.0\.kind: there is no kind .*Kinds: vllm, chunks, provider"),
        ({"kind": "chunks", "checkpont": "c"}, r"policies\.0\.checkpont: unknown key\. Did you mean 'checkpoint'\?"),
        ({"kind": "chunks"}, r"policies\.0\.checkpoint: Field required"),
        ({"kind": "chunks", "checkpoint": "c", "max_batch": 0}, r"policies\.0\.max_batch: .*\(got 0\)"),
        ({"kind": "provider", "model": "m", "act": {"arm": {"max_tokns": 9}}}, r"act\.arm\.max_tokns: .*'max_tokens'"),
        ("policy", r"policies\.0: must be a mapping of settings \(got 'policy'\)"),
    ],
)
def test_a_mistake_in_a_policy_is_told_by_its_place_in_the_file_whatever_its_kind(policy: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ServeConfig.parse({"policies": [policy]})
