"""Configurations are documents: every shipped one loads, and a mistake is answered by what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.base import PACKAGE_DIR, ConfigError, YamlConfig
from configs.serving import ServeConfig
from configs.sweep import SweepConfig
from configs.training import TrainConfig

SCHEMAS: dict[str, type[YamlConfig]] = {"train": TrainConfig, "serve": ServeConfig, "sweep": SweepConfig}
SHIPPED = sorted(PACKAGE_DIR.rglob("*.yaml"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_shipped_config_loads_and_survives_a_round_trip(file: Path) -> None:
    schema = SCHEMAS[file.parent.name]
    config = schema.load(file)
    assert schema.parse(config.dump()) == config


def test_an_unknown_key_is_answered_by_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match=r"env.nam: unknown key. Did you mean 'name'"):
        TrainConfig.parse({"env": {"nam": "x"}})
    with pytest.raises(ConfigError, match=r"Did you mean 'rollout'"):
        TrainConfig.parse({}, ["rolout.workers=2"])


def test_overrides_come_after_the_file_and_know_exponents() -> None:
    config = TrainConfig.load("configs/train/tictactoe_tiny.yaml", ["optimizer.lr=1e-4", "steps=3"])
    assert (config.optimizer.lr, config.steps) == (1e-4, 3)


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


def test_a_missing_file_lists_what_ships() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean configs/train/tictactoe_tiny.yaml"):
        TrainConfig.load("configs/train/tictactoe_tini.yaml")


@pytest.mark.parametrize(
    ("override", "advice"),
    [
        ("sampling.top_p=0.9", "train with top_p 1"),
        ("learner.workers=2", "use ddp, fsdp2 or deepspeed"),
        ("rollout.group_size=1", "at least 2"),
        ("sampling.temperature=0", "above 0"),
        ("weights.transport=nccl", "use 'store', or give the learner a GPU"),
        ("steps", "must look like section.key=value"),
    ],
)
def test_settings_that_do_not_fit_say_what_to_do_instead(override: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        TrainConfig.parse({}, [override])
