"""Whole training runs through the replica: learning path, resume, and what survives when parts are killed."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import ray
from safetensors.torch import load_file

from deployments.storage import ownership, runs
from deployments.storage.runs import RunFolder
from tests.integration.conftest import tiny_config
from training.evaluation.evaluate import evaluate
from training.evaluation.examine import examine_session
from training.imitation import tiny
from training.rollouts.session import open_session
from training.run.driver import TrainingFailed, train

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def rows(run: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


def weights(run: RunFolder) -> dict[str, Any]:
    return load_file(Path(run.final_model) / "model.safetensors")


def base_version(stack: Any) -> int:
    return stack.session.store.latest() or 0


def test_a_run_that_joins_plays_its_first_step_with_its_own_weights(stack: Any) -> None:
    """It stands first, before any other run has published here: the replicas hold their own model as version 0."""
    joined = (f"weights.root={stack.session.weights_root}", "serving.connect=rayward", "steps=1", "seed=1")
    config = tiny_config(stack.storage, *joined)
    run = runs.create(config)
    vocabulary = tiny_config(stack.storage, "env.name=tictactoe").env  # that of the served model
    other = tiny.build(config.model.tiny, vocabulary, 1, run.path / "models" / "init")
    served = load_file(stack.session.model / "model.safetensors")
    assert any((served[name] != tensor).any() for name, tensor in load_file(other / "model.safetensors").items())

    with open_session(config, run, other) as session:
        train(session)
        assert ownership.owner(Path(stack.session.weights_root)) is not None

    (row,) = rows(run)
    assert row["train/logp_difference_max"] < 1e-4, "answers of another model"


def test_six_steps_equal_three_and_a_resume_and_three_bit_for_bit(stack: Any) -> None:
    stages = "{stages: [{name: first}, {name: second}], order: {kind: success, advance_at: 0.01, window_groups: 12}}"
    exact = ("deterministic=true", "rollout.max_refills=1", f"curriculum={stages}")
    whole = stack.open_run(tiny_config(stack.storage, "steps=6", *exact))
    train(whole, base_version=base_version(stack))

    first = stack.open_run(tiny_config(stack.storage, "steps=3", *exact))
    train(first, base_version=base_version(stack))
    second = stack.open_run(tiny_config(stack.storage, "steps=6", *exact), first.run)
    train(second, base_version=base_version(stack))

    assert [row["step"] for row in rows(first.run)] == [0, 1, 2, 3, 4, 5]
    assert rows(whole.run)[0]["curriculum/stage"] == 0.0
    assert rows(whole.run)[-1]["curriculum/stage"] == 1.0, "the curriculum never went on"
    for name in ("rollout/return", "rollout/replaced_groups_total", "curriculum/stage"):
        assert [row[name] for row in rows(first.run)] == [row[name] for row in rows(whole.run)], name
    expected, resumed = weights(whole.run), weights(first.run)
    start = load_file(stack.session.model / "model.safetensors")
    assert any((start[name] != expected[name]).any() for name in expected), "nothing was learned: the test says nothing"
    assert all((expected[name] == resumed[name]).all() for name in expected)


def test_sampler_and_learner_agree_on_every_token(stack: Any) -> None:
    session = stack.open_run(tiny_config(stack.storage, "steps=2"))
    train(session, base_version=base_version(stack))
    assert max(row["train/logp_difference"] for row in rows(session.run)) < 1e-4
    assert [file.name for file in session.run.episodes.iterdir()] == ["step-00000000.parquet"]
    report = examine_session(session, session.run.final_model, turns=24, version=base_version(stack))
    assert report.healthy, report.cause
    assert report.max_difference < 1e-4
    print("doctor, largest difference:", report.max_difference)


def test_training_goes_on_when_the_replica_is_killed_in_the_middle_of_a_step(stack: Any) -> None:
    steps, groups = 5, 48
    session = stack.open_run(tiny_config(stack.storage, f"steps={steps}", f"rollout.groups_per_step={groups}"))
    killed = threading.Event()

    def kill_in_mid_step(step: int, metrics: dict[str, float]) -> None:
        if not killed.is_set():
            killed.set()
            while ray.get(session.coordinator.counts.remote())["episodes_completed"] % (groups * 4) < 8:
                pass  # the next step's episodes are under way
            for replica in stack.replica_actors():
                ray.kill(replica, no_restart=True)

    train(session, kill_in_mid_step, base_version=base_version(stack))

    assert killed.is_set()
    done = rows(session.run)
    assert [row["step"] for row in done] == list(range(steps))
    assert all(row["rollout/lag_max"] == 0 for row in done), "an answer came from older weights"
    counts = ray.get(session.coordinator.counts.remote())
    played = counts["episodes_completed"] + counts.get("episodes_truncated", 0)
    assert played == steps * groups * 4, "episodes lost or doubled"
    assert counts.get("retries_infra_failed", 0) > 0, "the kill met no request"
    print("recovery, s:", max(row["rollout/wait_s"] for row in done))


def test_training_goes_on_when_a_rollout_worker_is_killed(stack: Any) -> None:
    session = stack.open_run(tiny_config(stack.storage, "steps=4", "rollout.groups_per_step=12"))
    killed = threading.Event()

    def kill_a_worker(step: int, metrics: dict[str, float]) -> None:
        if not killed.is_set():
            killed.set()
            ray.kill(ray.get(session.coordinator.workers.remote())[0], no_restart=True)

    train(session, kill_a_worker, base_version=base_version(stack))

    assert [row["step"] for row in rows(session.run)] == [0, 1, 2, 3]
    assert ray.get(session.coordinator.counts.remote())["workers_replaced"] == 1


def test_a_hung_environment_ends_in_a_named_error(stack: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings = ("env.step_timeout_s=2", "tracking.stalled_after_s=2", "steps=1", "learner.restarts=0")
    session = stack.open_run(tiny_config(stack.storage, "env.name=tests.integration.odd_envs:Hanging", *settings))
    with pytest.raises(TrainingFailed, match=r"the environment hung twice: .*step"):
        train(session, base_version=base_version(stack))
    assert "the learner waits for the groups of step 0" in caplog.text, "the watchdog was silent"


def test_a_raising_environment_ends_in_an_error_that_names_it_without_another_start(stack: Any) -> None:
    name = "tests.integration.odd_envs:Raising"
    session = stack.open_run(tiny_config(stack.storage, f"env.name={name}", "steps=1", "learner.restarts=2"))
    with pytest.raises(TrainingFailed, match=r"EnvironmentFailed: .*reset, seed \d+: ValueError: broken level"):
        train(session, base_version=base_version(stack))
    assert ray.get(session.coordinator.begun.remote()) == 1, "the learner was started again to fail again"


def test_an_evaluation_repeats_exactly(stack: Any) -> None:
    session = stack.open_run(tiny_config(stack.storage))
    first, second = evaluate(session, "first"), evaluate(session, "second")
    assert first.success_S == second.success_S
    assert len(first.success_S) == 16


def test_actors_that_have_played_hold_no_torch(stack: Any) -> None:
    session = stack.open_run(tiny_config(stack.storage))
    evaluate(session, "any")
    for actor in [session.coordinator, *ray.get(session.coordinator.workers.remote())]:
        loaded = ray.get(actor.__ray_call__.remote(lambda _: set(sys.modules)))
        assert not loaded & {"torch", "transformers", "vllm"}


def test_rollouts_may_run_ahead_by_the_configured_lag(stack: Any) -> None:
    session = stack.open_run(tiny_config(stack.storage, "steps=5", "rollout.max_policy_lag_steps=2"))
    train(session, base_version=base_version(stack))
    lags = [row["rollout/lag_max"] for row in rows(session.run)]
    assert max(lags) <= 2


def test_one_model_is_evaluated_under_every_history_strategy_on_the_same_replica(stack: Any) -> None:
    session = stack.open_run(
        tiny_config(stack.storage, "env.name=key_door", "env.max_turns=4", "evaluation.episodes=4")
    )
    found = [evaluate(session, "model", history=name) for name in ("none", "full", "scratchpad", "optimal_scratchpad")]
    assert [evaluation.history for evaluation in found] == ["none", "full", "scratchpad", "optimal_scratchpad"]
    assert len(list(session.run.evaluations.iterdir())) == 4
    with pytest.raises(ray.exceptions.RayTaskError, match="has no scratchpad"):
        evaluate(stack.open_run(tiny_config(stack.storage, "env.name=tictactoe")), "model", history="scratchpad")
