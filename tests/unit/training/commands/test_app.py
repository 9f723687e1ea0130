"""What a user reads when something is wrong: one line that says what and what to do, and an exit code that is not 0."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from configs.training import TrainConfig
from envs import registry
from training.cluster import placement, ports
from training.cluster.errors import ClusterError
from training.commands import app

TINY = "configs/train/tictactoe_tiny.yaml"


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and stderr of a command."""
    code = app.run(list(arguments))
    return code, capsys.readouterr().err


@pytest.fixture
def finished_run(tmp_path: Path) -> Path:
    """A run folder whose last checkpoint is that of its last step."""
    run = tmp_path / "run"
    done = run / "checkpoints" / f"step-{TrainConfig.load(TINY).steps:08d}"
    done.mkdir(parents=True)
    (done / "done.json").write_text("{}")
    (run / "config.json").write_text(json.dumps(TrainConfig.load(TINY).dump()))
    return run


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["train", "--config", TINY, "--set", "rollout.group_sise=4"], "group_size"),
        (["train", "--config", TINY, "--set", "steps=many"], "steps"),
        (["train", "--config", "no/such.yaml"], "no/such.yaml"),
        (["train"], "--config"),
        (["train", "--config", TINY, "--resume", "x"], "--resume takes the run's own configuration"),
        (["train", "--resume", "no-such-run"], "no run 'no-such-run'"),
        (["train", "--config", TINY, "--set", "storage_path=s3://bucket"], "a local or mounted folder"),
        (["eval", "--config", TINY], "--model"),
        (["eval", "--config", TINY, "--model", "/no/such/model"], "/no/such/model"),
        (["compare", "--config", TINY, "--model", "/no/such/model"], "/no/such/model"),
        (["play"], "--env"),
        (["play", "--env", "tictacto"], "Did you mean 'tictactoe'?"),
        (["play", "--env", "tictactoe", "--run", "x"], "give one of them"),
        (["play", "--env", "wordle", "--set", "env.kwargs.turn=2"], "Did you mean 'turns'"),
        (["play", "--env", "wordle", "--pause"], "by hand, each turn waits"),
        (["eval", "--run", "x", "--json", "out.json"], "--json has an effect on a policy that is served alone"),
        (["eval", "--config", TINY, "--model", "x", "--parallel", "2"], "--parallel has an effect"),
        (["eval", "--env", "vf-arm"], "--env arm is played by a policy that is served"),
        (["play", "--env", "bfcl", "--gif", "x.gif"], "--gif: bfcl has no pictures"),
        (["doctor"], "--run"),
        (["serve", "--config", "no/such.yaml"], "no/such.yaml"),
        (["load", "no/such.yaml"], "no such file: no/such.yaml"),
        (["unload", "arm", "--key-file", "no/such.key"], "--key-file no/such.key cannot be read"),
        (["sweep", "--config", "no/such.yaml"], "no/such.yaml"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_a_wrong_call_is_answered_with_what_to_do(
    arguments: list[str], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = said(capsys, *arguments)

    assert code == 1
    assert advice in error
    assert "Traceback" not in error


def test_a_doctor_that_finds_a_fault_exits_with_1(
    policy_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It printed «unhealthy» and exited with 0: scripts took it for healthy."""
    from training.evaluation import examine
    from training.evaluation.doctor import diagnose

    sampled = [[-1.0, -2.0]]
    for learner, expected in ((sampled, 0), ([[-0.5, -2.5]], 1)):
        report = diagnose(sampled, lambda temperature, scores=learner: scores, 1.0, [0], 0)  # type: ignore[misc]
        monkeypatch.setattr(examine, "examine", lambda *_, found=report: found)

        code, error = said(capsys, "doctor", "--config", TINY, "--model", str(policy_folder))

        assert code == expected
        assert ("stale weights or another model" in error) == bool(expected)


@pytest.mark.parametrize(("raised", "code"), [(typer.Exit(3), 3), (KeyboardInterrupt(), 130), (typer.Abort(), 1)])
def test_the_way_a_command_ends_is_its_exit_code(
    raised: BaseException, code: int, policy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C exited with 0."""
    from training.evaluation import examine

    def end(*_: object) -> None:
        raise raised

    monkeypatch.setattr(examine, "examine", end)

    assert app.run(["doctor", "--config", TINY, "--model", str(policy_folder)]) == code


def test_an_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, error = said(capsys, "train", "--confg", TINY)

    assert code == 2
    assert "--confg" in error


@pytest.mark.parametrize(
    ("override", "advice"),
    [
        ("env.name=tictacto", "Did you mean 'tictactoe'?"),
        ("env.kwargs={oponent: minimax}", "Did you mean 'opponent'?"),
        ("model.source=/no/such/model", "/no/such/model"),
    ],
)
def test_what_a_run_cannot_be_made_from_is_named_before_anything_starts(
    override: str, advice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = said(capsys, "train", "--config", TINY, "--set", f"storage_path={tmp_path}", "--set", override)

    assert code == 1
    assert advice in error


def test_a_run_that_is_done_is_not_resumed_in_silence(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, error = said(capsys, "train", "--resume", str(finished_run))

    assert code == 1
    assert f"has done all its {TrainConfig.load(TINY).steps} steps: name more with --set steps=N" in error


def test_a_dry_run_prints_configuration_and_placement_and_starts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["train", "--config", "configs/train/qwen_7b_8xa100.yaml", "--dry-run"]) == 0

    printed = capsys.readouterr().out
    assert "tensor_parallel_size: 2" in printed
    assert "policy replica" in printed


def test_a_broken_package_does_not_hide_the_other_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken_games-1.2.dist-info").mkdir()
    (tmp_path / "broken_games-1.2.dist-info" / "METADATA").write_text("Name: broken_games\nVersion: 1.2\n")
    point = f"[{registry.ENTRY_POINTS}]\nbroken = no_such_module:Game\n"
    (tmp_path / "broken_games-1.2.dist-info" / "entry_points.txt").write_text(point)
    monkeypatch.syspath_prepend(tmp_path)

    code = app.run(["envs"])

    printed = " ".join(capsys.readouterr().out.split())
    assert code == 0
    assert all(name in printed for name in registry.REGISTRY)
    assert "package broken_games 1.2" in printed
    assert "gym:NAME" in printed
    assert app.run(["play", "--env", "broken"]) == 1
    assert "No module named 'no_such_module'. Repair or uninstall that package" in capsys.readouterr().err


def test_a_port_that_is_taken_is_named_with_the_setting_that_changes_it() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ClusterError, match="choose another with http"):
            ports.check_port("127.0.0.1", taken.getsockname()[1])


def test_what_a_run_reserves_is_summed_over_learner_and_replicas() -> None:
    config = TrainConfig.load("configs/train/qwen_7b_8xa100.yaml")
    replicas, learner = config.serving.replicas, config.learner

    reserved = placement.needed(config)

    assert reserved["GPU"] == learner.workers * learner.gpus_per_worker + 2 * replicas.min_replicas
    assert placement.needed(TrainConfig.load(TINY)) == {}


@pytest.mark.parametrize(("raised", "code"), [(KeyboardInterrupt(), 130), (typer.Exit(1), 1), (None, 0)])
def test_the_exit_code_is_what_ended_the_command(
    raised: BaseException | None, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this mode typer returns both codes and raises neither: `rayward serve` ended with 0 after Ctrl-C."""

    def command() -> None:
        if raised is not None:
            raise raised

    monkeypatch.setattr(app.app, "registered_commands", list(app.app.registered_commands))
    app.app.command("ends")(command)

    assert app.run(["ends"]) == code
