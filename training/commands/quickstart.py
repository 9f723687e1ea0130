"""The main job on one machine: `python -m training.commands.quickstart [tictactoe|key_door]`.

Builds a tiny policy, warm-starts it, trains it by GRPO through a served replica, and shows that it got better.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from configs.training import TrainConfig
from deployments.storage import runs
from deployments.storage.ownership import owned_by_us
from training.cluster.quiet import quiet_libraries
from training.commands.options import check_memory, peak_memory
from training.commands.progress import bars, on_step
from training.commands.tables import table
from training.evaluation.evaluate import evaluate, publish_folder
from training.evaluation.result import Evaluation
from training.rollouts.environment import check_environment
from training.rollouts.session import Session, open_session
from training.run.driver import train
from training.run.start import initial_model, start_model
from training.tracking.plots import learning_curve

CONFIGS = {"tictactoe": "configs/train/tictactoe_tiny.yaml", "key_door": "configs/train/key_door_tiny.yaml"}


@dataclass(frozen=True)
class Outcome:
    """The three policies on the same held-out situations."""

    run: runs.RunFolder
    evaluations: tuple[Evaluation, Evaluation, Evaluation]
    seconds: dict[str, float]


def play(config: TrainConfig, console: Console) -> Outcome:
    """The whole job for one configuration, with progress on the console."""
    run = runs.create(config)
    with owned_by_us(run.path):
        return _play_in(run, config, console)


def _play_in(run: runs.RunFolder, config: TrainConfig, console: Console) -> Outcome:
    seconds: dict[str, float] = {}
    began = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal began
        seconds[name] = time.perf_counter() - began
        began = time.perf_counter()

    console.print("[bold]1/5[/] a tiny Qwen2 with its own tokenizer and random weights")
    init = prepare(config, run, console, lap)
    console.print("[bold]3/5[/] starting Ray, Ray Serve and one vLLM replica (about half a minute)")
    with open_session(config, run, init) as session:
        lap("start")
        result = train_and_evaluate(session, console, lap)
    return Outcome(run, result, seconds)


def prepare(config: TrainConfig, run: runs.RunFolder, console: Console, lap: Callable[[str], None]) -> Path:
    """The model that `model.source` names (returned), built where it is tiny, and its warm-started copy,
    `run.start_model`."""
    with bars(console) as progress:
        bar = progress.add_task("2/5 warm start on mediocre demonstrations", total=config.warmstart.steps)

        def on_warm(step: int, steps: int, loss: float) -> None:
            progress.update(bar, completed=step, description=f"2/5 warm start, loss {loss:.3f}")

        start_model(config, run, on_warm)
    lap("build and warm start")
    return initial_model(config, run)


def train_and_evaluate(
    session: Session, console: Console, lap: Callable[[str], None], untrained: str = "random init"
) -> tuple[Evaluation, Evaluation, Evaluation]:
    """The session's model (named `untrained`), warm start and trained policy through the same replica."""
    config, run = session.config, session.run
    at_first = evaluate(session, untrained, publish_folder(session, session.model))
    version = publish_folder(session, run.start_model)
    warm = evaluate(session, "warm start", version)
    lap("evaluate before")
    console.print(f"    warm start wins {warm.success}")
    session = replace(session, model=run.start_model)
    with bars(console) as progress:
        train(session, on_step(progress, "4/5 GRPO", config.steps), base_version=version)
    lap("grpo")
    console.print("[bold]5/5[/] evaluating on held-out situations")
    trained = evaluate(session, "GRPO", session.store.latest() or 0)
    lap("evaluate after")
    return at_first, warm, trained


def main(env: str = "tictactoe", overrides: tuple[str, ...] = ()) -> Outcome:
    quiet_libraries()
    console = Console()
    config = TrainConfig.load(CONFIGS[env], overrides)
    check_environment(config, console.print)
    check_memory(config)
    with peak_memory():
        outcome = play(config, console)
    run = outcome.run
    picture = run.path / "learning_curve.png"
    marks = {e.name: e.success for e in outcome.evaluations}
    learning_curve(run.metrics, picture, f"{env}: GRPO through a served replica", marks)
    console.print(table(outcome.evaluations, f"{env}: {config.evaluation.episodes} held-out situations, temperature 1"))
    console.print("  ".join(f"{name} {value:.0f} s" for name, value in outcome.seconds.items()))
    console.print(f"learning curve  {picture}\nrun folder      {run.path}", soft_wrap=True)
    other = "key_door" if env == "tictactoe" else "tictactoe"
    console.print(
        "\nTry next:\n"
        f"  make quickstart ENV={other}\n"
        f"  .venv/bin/rayward play --run {run.path}      # watch the policy play\n"
        f"  .venv/bin/rayward doctor --run {run.path}    # sampler against learner, token by token\n"
        f"  .venv/bin/rayward train --config {CONFIGS[env]} --set steps=400",
        soft_wrap=True,
    )
    return outcome


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "tictactoe", tuple(sys.argv[2:]))
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped by Ctrl-C; Ray and the replica are shut down")
        sys.exit(130)
