"""What an evaluation reports, and which models and history strategies it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from configs.base import ConfigError
from configs.training import TrainConfig
from deployments.storage import models, runs
from envs.history import HistoryUnsupported
from training.commands.tables import paired_table, table
from training.evaluation.evaluate import apart, check_histories
from training.evaluation.result import Evaluation, summarize
from training.types import Episode, Task, Turn


def episode(reward: float, outcome: str, illegal: bool = False, full: bool = False) -> Episode:
    turns = (Turn((1,), (2,), (-0.1,), 0, 0.0, illegal=illegal), Turn((1,), (2,), (-0.1,), 0, reward))
    task, success = Task("tictactoe", 0), outcome == "win"
    if full:
        return Episode(task, 0, turns, "truncated", success, outcome, truncation="context_full")
    return Episode(task, 0, turns, "completed", success, outcome)


def evaluation(name: str, *rewards: float, history: str = "none") -> Evaluation:
    named = {1.0: "win", 0.0: "draw", -1.0: "loss"}
    return summarize(name, "tictactoe", history, [episode(reward, named[reward]) for reward in rewards])


def shown(table: Any) -> str:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def model_folder(path: Path, template: str = "", **changes: Any) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model_type": "qwen2", "hidden_size": 64, **changes}))
    (path / "chat_template.jinja").write_text(template)
    save_file({"weight": np.zeros(2, np.float32)}, path / "model.safetensors")
    return path


def test_success_return_outcomes_and_illegal_share_are_counted_over_the_episodes() -> None:
    found = summarize(
        "a", "tictactoe", "none", [episode(1.0, "win"), episode(-1.0, "loss", illegal=True), episode(0.0, "draw")]
    )
    assert found.success.value == pytest.approx(1 / 3)
    assert found.mean_return.value == 0.0
    assert found.outcomes == {"win": 1, "draw": 1, "loss": 1}
    assert found.illegal_rate == pytest.approx(1 / 6)  # one of six turns
    assert (found.success_S, found.returns_S) == ((1.0, 0.0, 0.0), (1.0, -1.0, 0.0))


def test_a_chat_that_outgrew_the_engine_is_said_below_the_table() -> None:
    full = [episode(0.0, "", full=True), episode(1.0, "win")]
    found = summarize("a", "tictactoe", "full", full)
    assert "outgrew engine.max_model_len in 1 episodes" in " ".join(shown(table([found], "t")).split())


def test_rows_of_several_strategies_name_theirs() -> None:
    both = [evaluation("a", 1.0), evaluation("a", 1.0, history="full")]
    assert "a, none" in shown(table(both, "t"))
    assert "a, full" in shown(table(both, "t"))
    assert "none" not in shown(table(both[:1], "t"))


def test_a_comparison_pairs_the_situations() -> None:
    # returns differ by (0, 2, 1, 0): mean 0.75; successes by (0, 1, 0, 0): 0.25
    text = shown(paired_table([evaluation("a", 1.0, -1.0, -1.0, 0.0), evaluation("b", 1.0, 1.0, 0.0, 0.0)]))
    assert "+0.250" in text
    assert "+0.750" in text
    assert "2 / 2 / 0" in text


def test_a_model_is_compared_under_the_same_strategy_where_there_is_one() -> None:
    rows = [evaluation(name, 1.0, history=history) for name in ("A", "B") for history in ("none", "full")]
    lines = [" ".join(line.split()) for line in shown(paired_table(rows)).splitlines()]
    assert any("A, full │ A, none" in line for line in lines)
    assert any("B, none │ A, none" in line for line in lines)
    assert any("B, full │ A, full" in line for line in lines)


def test_an_environment_without_a_scratchpad_says_so_before_anything_starts() -> None:
    config = TrainConfig.parse({"env": {"name": "tictactoe"}})
    with pytest.raises(HistoryUnsupported, match="tictactoe has no scratchpad: use history none or full"):
        check_histories(config, ["none", "optimal_scratchpad"])
    check_histories(TrainConfig.parse({"env": {"name": "key_door"}}), ["none", "full", "scratchpad"])


def test_an_evaluation_never_publishes_into_a_training_runs_store(tmp_path: Path) -> None:
    run = runs.RunFolder(tmp_path / "eval-1")
    config = TrainConfig.parse({"weights": {"root": "s3://bucket/weights/"}})
    assert apart(config, run).weights.root == "s3://bucket/weights/eval-1"
    with pytest.raises(ConfigError, match=r"--set serving.connect=null"):
        apart(TrainConfig.parse({"serving": {"connect": "rayward"}}), run)


def test_models_of_one_architecture_may_be_compared_and_others_are_named(tmp_path: Path) -> None:
    first, same = model_folder(tmp_path / "a"), model_folder(tmp_path / "b")
    models.check_same_architecture([first, same])
    with pytest.raises(ConfigError, match=r"differs from .* in hidden_size"):
        models.check_same_architecture([first, model_folder(tmp_path / "c", hidden_size=128)])
    with pytest.raises(ConfigError, match="in chat template"):
        models.check_same_architecture([first, model_folder(tmp_path / "d", template="other")])


def test_a_run_stands_for_its_newest_model(tmp_path: Path) -> None:
    run = runs.create(TrainConfig.parse({"storage_path": str(tmp_path)}))
    with pytest.raises(ConfigError, match="has no model yet"):
        models.newest(run)
    model_folder(run.start_model)
    assert models.find(run.path) == run.start_model
    model_folder(run.final_model)
    assert models.find(run.path) == run.final_model
    assert models.labels([run.start_model, run.final_model]) == {"A start": run.start_model, "B final": run.final_model}
