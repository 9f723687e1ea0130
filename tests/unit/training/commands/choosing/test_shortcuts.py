"""Short options become a configuration: the right file, the right GPUs; `--set` counts for more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs.base import ConfigError
from configs.training import TrainConfig
from envs.registry import UnknownEnvironment
from training.cluster import placement
from training.commands import app
from training.commands.choosing import shortcuts
from training.commands.choosing.shortcuts import Shortcuts

TINY = "configs/train/tictactoe_tiny.yaml"
THEIRS = """
modal: {gpu_type: H100, gpu_count: 2}
model: {base_model: a/base, overrides: {bfcl: a/caller}}
training: {environment: vf-wordle, steps: 150}
"""


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EXPERIMENTER", "EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


def loaded(config: str = "", *overrides: str, **wanted: Any) -> tuple[TrainConfig, str]:
    """The configuration, and what the user is told."""
    lines: list[str] = []
    return shortcuts.load(config, Shortcuts(**wanted), overrides, lines.append), "\n".join(lines)


@pytest.fixture
def theirs(tmp_path: Path) -> str:
    (tmp_path / "their.yaml").write_text(THEIRS)
    return str(tmp_path / "their.yaml")


@pytest.mark.parametrize(
    ("env", "gpu_type", "file"),
    [
        ("vf-wordle", "A100-40GB", "configs/train/wordle.yaml"),
        ("wordle", "", "configs/train/wordle_tiny.yaml"),
        ("vf-bfcl", "H100", "configs/train/bfcl.yaml"),
        ("vf-tic-tac-toe", "T4", "configs/train/tictactoe.yaml"),
        ("key-door", "A10G", "configs/train/key_door.yaml"),
    ],
)
def test_an_environment_chooses_a_shipped_file_and_says_which(env: str, gpu_type: str, file: str) -> None:
    config, told = loaded(env=env, gpu_type=gpu_type)
    assert f"configuration: {file}" in told.splitlines()
    assert config.env == TrainConfig.load(file).env


def test_an_environment_without_a_shipped_file_says_which_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'key_door_pixels'.*--config.*configs/train/key_door_pixels_tiny\.yaml"):
        loaded(env="key_door_pixels", gpu_type="A100")
    with pytest.raises(ConfigError, match=r"of a tiny model ships .*'cave'.*: none"):
        loaded(env="cave")


def test_an_unknown_environment_says_which_there_are() -> None:
    with pytest.raises(UnknownEnvironment, match=r"no environment 'vf-gsm8k'.*wordle"):
        loaded(env="vf-gsm8k")


def test_learner_and_replica_share_a_single_gpu() -> None:
    config, told = loaded(env="wordle", gpu_count=1, gpu_type="A100-40GB", steps=200)

    roles = {role.name: role for role in placement.placement(config)}
    for name in ("learner", "policy replica"):
        assert (roles[name].gpus, roles[name].resources) == (0.5, {"accelerator_type:A100-40G": 0.001})
    assert (roles["learner"].count, config.steps) == (1, 200)
    assert placement.needed(config) == {"GPU": 1, "accelerator_type:A100-40G": 0.002}
    assert config.serving.engine.gpu_memory_utilization < 0.5
    assert "share the GPU" in told


@pytest.mark.parametrize("gpus", [2, 4])
def test_of_several_gpus_the_replica_has_one(gpus: int) -> None:
    config, told = loaded(env="wordle", gpu_count=gpus, gpu_type="A100")
    assert placement.needed(config)["GPU"] == gpus
    assert (config.learner.workers, config.serving.engine.gpu_share) == (gpus - 1, 1)
    assert f"of {gpus} GPUs a replica has one" in told


def test_several_learner_processes_share_the_model_as_the_file_says_or_by_fsdp2() -> None:
    config, told = loaded(env="wordle", gpu_count=4)
    assert config.learner.sharding == "fsdp2"
    assert "the learner's 3 processes share the model: learner.sharding is fsdp2" in told
    assert loaded("", "learner.sharding=ddp", env="wordle", gpu_count=4)[0].learner.sharding == "ddp"
    assert loaded(env="wordle", gpu_count=2)[0].learner.sharding == "none"
    assert loaded("configs/train/qwen_7b_8xa100.yaml", gpu_count=3)[1].count("fsdp2") == 0


def test_a_t4_does_not_compute_in_bfloat16() -> None:
    config, told = loaded(env="wordle", gpu_type="t4")
    assert (config.model.dtype, config.serving.engine.dtype) == ("float32", "float16")
    assert "no bfloat16" in told


def test_a_machine_of_our_own_keeps_its_custom_resources() -> None:
    config, _ = loaded("configs/train/qwen_0_5b_a100.yaml", gpu_type="A100-80GB")
    assert config.learner.resources == {"train_node": 1, "accelerator_type:A100-80G": 0.001}


def test_set_counts_for_more_than_a_shortcut() -> None:
    config, _ = loaded(TINY, "steps=3", "model.source=b", steps=9, model="a")
    assert (config.steps, config.model.source) == (3, "b")


def test_another_environment_does_not_get_the_settings_of_the_files_own() -> None:
    config, told = loaded("configs/train/wordle_tiny.yaml", env="key_door")
    assert (config.env.name, config.env.kwargs, config.env.system_prompt) == ("key_door", {"split": "train"}, None)
    assert "section `env` is left out" in told
    assert loaded(TINY, env="vf-tictactoe")[0] == TrainConfig.load(TINY)


def test_a_launchers_file_is_laid_over_the_shipped_one(theirs: str) -> None:
    config, told = loaded(theirs)

    shipped = TrainConfig.load("configs/train/wordle.yaml")
    assert (config.env, config.sampling, config.rollout) == (shipped.env, shipped.sampling, shipped.rollout)
    assert (config.model.source, config.steps) == ("a/base", 150)
    assert (config.learner.workers, config.learner.sharding) == (1, "none")
    assert "accelerator_type:H100" in config.serving.replicas.resources
    assert "  training.steps: steps = 150" in told.splitlines()
    assert "the other settings are those of configs/train/wordle.yaml" in told


def test_options_count_for_more_than_a_launchers_file(theirs: str) -> None:
    config, told = loaded(theirs, env="vf-bfcl", gpu_type="A100", steps=3)

    assert (config.env.name, config.steps, config.model.source) == ("bfcl", 3, "a/caller")  # its model of that name
    assert "accelerator_type:A100" in config.learner.resources
    assert "training.environment: without effect, because --env bfcl is played instead" in told
    assert loaded(theirs, env="bfcl", model="mine")[0].model.source == "mine"


def test_a_launchers_file_for_an_environment_without_a_shipped_one_has_our_defaults(tmp_path: Path) -> None:
    (tmp_path / "their.yaml").write_text("training: {environment: cave}\n")
    config, told = loaded(str(tmp_path / "their.yaml"))
    assert config.env == TrainConfig.parse({"env": {"name": "cave", "kwargs": {"split": "train"}}}).env
    assert "the other settings" not in told


def test_who_experiments_with_what_is_a_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, theirs: str) -> None:
    monkeypatch.setenv("EXPERIMENTER", "ada")
    monkeypatch.setenv("EXPERIMENT_NAME", "night")
    (tmp_path / "mine.yaml").write_text("experiment: mine\n")

    def names(config: str = "", *overrides: str, **wanted: Any) -> tuple[str, str]:
        found, _ = loaded(config, *overrides, **wanted)
        return found.experimenter, found.experiment

    assert names(str(tmp_path / "mine.yaml")) == ("ada", "mine")
    assert names(env="wordle") == ("ada", "night")  # over a file that nobody named
    assert names(theirs) == ("ada", "night")
    assert names("", "experimenter=bob", env="wordle") == ("bob", "night")


@pytest.mark.parametrize("env", ["wordle", "bfcl", "tictactoe", "key_door"])
def test_a_dry_run_of_a_real_model_starts_nothing(
    env: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("a dry run started Ray"))
    options = ["--steps", "200", "--gpu-count", "1", "--gpu-type", "A100-40GB", "--dry-run"]

    assert app.run(["train", "--env", f"vf-{env}", *options]) == 0

    said = capsys.readouterr().out
    assert "source: Qwen/Qwen2.5-1.5B-Instruct" in said
    assert "policy replica" in said
    assert "memory, all on one machine" in said
