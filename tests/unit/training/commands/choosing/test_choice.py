"""`rayward eval --env NAME --model MODEL` takes the configuration that trained the model, or a real model's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.base import ConfigError
from configs.training import TrainConfig
from deployments.storage import runs
from deployments.storage.runs import RunFolder
from training.commands import app, evaluate, options
from training.commands.choosing.choice import configuration_for

TINY = "configs/train/tictactoe_tiny.yaml"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = runs.create(TrainConfig.load(TINY, [f"storage_path={tmp_path}", "optimizer.lr=0.123"]))
    made.final_model.mkdir(parents=True)
    (made.final_model / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    return made


@pytest.mark.parametrize("below", ["", "models/final"])
def test_a_model_of_a_run_is_evaluated_as_it_was_trained(run: RunFolder, below: str) -> None:
    config = configuration_for("vf-tictactoe", [str(run.path / below)], ["seed=4"], 50)
    assert (config.optimizer.lr, config.seed, config.evaluation.episodes) == (0.123, 4, 50)


@pytest.mark.parametrize("model", ["Qwen/Qwen2.5-0.5B-Instruct", "a run of another environment"])
def test_any_other_model_gets_the_configuration_of_a_real_one(run: RunFolder, model: str) -> None:
    config = configuration_for("wordle", [str(run.path) if " " in model else model], [], 50)

    assert config.env == TrainConfig.load("configs/train/wordle.yaml").env
    assert config.evaluation.episodes == 50
    # An evaluation has no learner, whose GPUs the machine would need, and takes a CPU where there is no GPU.
    assert (config.learner.gpus_per_worker, config.serving.engine.device) == (0, "auto")


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["--env", "wordle"], "name a model with --model"),
        (["--env", "wordle", "--run", "x"], "--run has an environment of its own"),
        (["--env", "vf-chess", "--model", "a/b"], "no environment 'vf-chess'"),
    ],
)
def test_what_is_missing_is_told(arguments: list[str], advice: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["eval", *arguments]) == 1
    assert advice in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--num-examples", "--episodes"])
def test_the_number_of_examples_is_that_of_the_episodes(
    option: str, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[TrainConfig, list[Path]]] = []
    monkeypatch.setattr(evaluate, "_evaluate", lambda config, models, history: seen.append((config, models)) or [])
    monkeypatch.setattr(evaluate, "find_models", lambda given, folder: [Path(given[0])])

    assert app.run(["eval", "--env", "tictactoe", "--model", str(run.path), option, "37"]) == 0

    assert [config.evaluation.episodes for config, _ in seen] == [37]


def test_a_model_of_the_hub_is_taken_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[str] = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append(name)
        assert "*.safetensors" in allow_patterns
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)

    assert options.find_model("Qwen/Qwen2.5-0.5B-Instruct", None) == tmp_path
    assert asked == ["Qwen/Qwen2.5-0.5B-Instruct"]


def test_a_model_that_is_neither_here_nor_on_the_hub_says_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def download(name: str, allow_patterns: list[str]) -> str:
        raise FileNotFoundError("no network\nand a long trace")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)

    with pytest.raises(ConfigError, match=r"'a/b' does not exist.*Nor could it be taken from the hub: no network$"):
        options.find_model("a/b", None)
    with pytest.raises(ConfigError, match="does not exist") as raised:
        options.find_model(str(tmp_path / "none"), None)
    assert "hub" not in str(raised.value)
