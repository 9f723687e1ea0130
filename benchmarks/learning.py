"""Do tiny policies learn? `python -m benchmarks.learning --env wordle|bfcl|cart_pole|self_play --seeds 3 [--check]`.

Warm start, GRPO through a served replica and evaluation on held-out situations, each seed from its own random weights
and demonstrations. The seeds share one replica, whose start is the slow part.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from benchmarks.common import Figure, options, report
from configs.training import TrainConfig
from deployments.storage import runs
from training.commands.quickstart import prepare, train_and_evaluate
from training.commands.tables import table
from training.evaluation.result import Evaluation
from training.rollouts.session import Session, join_session, open_session

GAIN = 0.15  # of success, by GRPO
RATIO, MOST_MINUTES = 2.0, 15.0  # of the mean return, after and before
LOSSES = 0.5  # share of the lost games that may be left


@dataclass(frozen=True)
class Learned:
    """One seed: the same held-out situations before and after GRPO."""

    seed: int
    warm: Evaluation
    trained: Evaluation
    minutes: float


Judge = Callable[[str, Learned], list[Figure]]


def learned(file: str, seeds: int, overrides: list[str]) -> Iterator[Learned]:
    """Trains each seed by a configuration's recipe, on one replica."""
    console, replica = Console(), None
    with ExitStack() as stack:
        for seed in range(seeds):
            config = TrainConfig.load(file, [f"seed={seed}", *overrides])
            run, began = runs.create(config), time.perf_counter()
            init = prepare(config, run, console, lambda _: None)
            session = stack.enter_context(_session(config, run, init, replica))
            replica = replica or session
            _, warm, trained = train_and_evaluate(session, console, lambda _: None)
            console.print(table([warm, trained], f"{config.env.name}, seed {seed}, {run.path}"))
            yield Learned(seed, warm, trained, (time.perf_counter() - began) / 60)


def _session(config: TrainConfig, run: runs.RunFolder, init: Any, replica: Session | None) -> Any:
    return open_session(config, run, init) if replica is None else join_session(config, run, init, replica.weights_root)


def shares(env: str, one: Learned, bar: float | None = None) -> list[Figure]:
    """Success before and after, and the time."""
    return [
        Figure(f"{env} seed {one.seed}, warm start", one.warm.success.value, "success"),
        Figure(f"{env} seed {one.seed}, GRPO", one.trained.success.value, "success", bar),
        Figure(f"{env} seed {one.seed}, duration", one.minutes, "minutes"),
    ]


def intervals(env: str, one: Learned) -> Figure:
    gap = one.trained.success.low - one.warm.success.high
    return Figure(f"{env} seed {one.seed}, gap between the intervals", gap, "success", 0.0)


def gains(env: str, one: Learned) -> list[Figure]:
    gain = one.trained.success.value - one.warm.success.value
    return [*shares(env, one), Figure(f"{env} seed {one.seed}, gain", gain, "success", GAIN)]


def times_the_return(env: str, one: Learned) -> list[Figure]:
    """For an environment that pays for each step that it lasts."""
    before, after = one.warm.mean_return.value, one.trained.mean_return.value
    of_seed = f"{env} seed {one.seed}"
    return [
        Figure(f"{of_seed}, warm start", before, "mean return"),
        Figure(f"{of_seed}, GRPO", after, "mean return"),
        Figure(f"{of_seed}, ratio", after / before, "times", RATIO),
        Figure(f"{of_seed}, duration", one.minutes, "minutes", MOST_MINUTES, True),
    ]


def share_of_losses(env: str, one: Learned) -> list[Figure]:
    """For a game: how many of the games against the evaluation's opponent are lost."""
    before, after = (
        sum(value < 0 for value in each.returns_S) / len(each.returns_S) for each in (one.warm, one.trained)
    )
    of_seed = f"{env} seed {one.seed}"
    return [
        Figure(f"{of_seed}, warm start", before, "lost"),
        Figure(f"{of_seed}, GRPO", after, "lost"),
        Figure(f"{of_seed}, ratio", after / before, "times", LOSSES, True),
        Figure(f"{of_seed}, duration", one.minutes, "minutes"),
    ]


JUDGES: dict[str, tuple[str, Judge]] = {  # name -> (configuration, what is judged)
    "wordle": ("configs/train/wordle_tiny.yaml", gains),
    "bfcl": ("configs/train/bfcl_tiny.yaml", gains),
    "cart_pole": ("configs/train/cart_pole_tiny.yaml", times_the_return),
    "self_play": ("configs/train/tictactoe_selfplay.yaml", share_of_losses),
}


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--env", choices=tuple(JUDGES), default="wordle")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="a.b=value of the configuration")
    chosen = parser.parse_args()
    file, judge = JUDGES[chosen.env]
    results = learned(file, chosen.seeds, chosen.overrides)
    report(f"learning_{chosen.env}", [figure for one in results for figure in judge(chosen.env, one)], chosen)


if __name__ == "__main__":
    main()
