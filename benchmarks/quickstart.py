"""Does the main job make policies better? `python -m benchmarks.quickstart --seeds 3 [--env tictactoe] [--check]`.

Warm start, GRPO through a served replica and evaluation, each seed from its own random weights and demonstrations. The
seeds of an environment share one replica, whose start is the slow part; `--longer` trains for the longer recipe.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from rich.console import Console

from benchmarks.common import Figure, options, report
from configs.training import TrainConfig
from deployments.storage import runs
from training.commands.quickstart import CONFIGS, prepare, train_and_evaluate
from training.commands.tables import table
from training.evaluation.result import Evaluation
from training.rollouts.session import Session, join_session, open_session

LONGER = {"tictactoe": "configs/train/tictactoe_long.yaml", "key_door": "configs/train/key_door_long.yaml"}
BARS = {"tictactoe": 0.80, "key_door": 0.70}
LONGER_BAR = 0.90
GAIN = {"tictactoe": 0.0, "key_door": 0.15}


def play(env: str, seeds: int, longer: bool, overrides: list[str]) -> list[Figure]:
    console, figures = Console(), []
    replica: Session | None = None
    with ExitStack() as stack:
        for seed in range(seeds):
            config = TrainConfig.load((LONGER if longer else CONFIGS)[env], [f"seed={seed}", *overrides])
            run, began = runs.create(config), time.perf_counter()
            init = prepare(config, run, console, lambda _: None)
            if replica is None:
                replica = session = stack.enter_context(open_session(config, run, init))
            else:
                session = stack.enter_context(join_session(config, run, init, replica.weights_root))
            _, warm, trained = train_and_evaluate(session, console, lambda _: None)
            console.print(table([warm, trained], f"{env}, seed {seed}, {run.path}"))
            figures += judge(env, seed, longer, warm, trained)
            figures.append(Figure(f"{env} seed {seed}, duration", time.perf_counter() - began, "s"))
    return figures


def judge(env: str, seed: int, longer: bool, warm: Evaluation, trained: Evaluation) -> list[Figure]:
    bar = LONGER_BAR if longer else BARS[env]
    return [
        Figure(f"{env} seed {seed}, warm start", warm.success.value, "success"),
        Figure(f"{env} seed {seed}, GRPO", trained.success.value, "success", bar),
        Figure(f"{env} seed {seed}, gain", trained.success.value - warm.success.value, "success", GAIN[env]),
        Figure(
            f"{env} seed {seed}, gap between the intervals", trained.success.low - warm.success.high, "success", 0.0
        ),
    ]


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--env", choices=(*CONFIGS, "both"), default="both")
    parser.add_argument("--longer", action="store_true")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="a.b=value of the configuration")
    chosen = parser.parse_args()
    envs = tuple(CONFIGS) if chosen.env == "both" else (chosen.env,)
    figures = [f for env in envs for f in play(env, chosen.seeds, chosen.longer, chosen.overrides)]
    name = "quickstart_longer" if chosen.longer else "quickstart"
    report(name if chosen.env == "both" else f"{name}_{chosen.env}", figures, chosen)


if __name__ == "__main__":
    main()
