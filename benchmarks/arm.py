"""Does behaviour cloning teach the MuJoCo arm its tasks? `python -m benchmarks.arm [--tasks reach pick] [--check]`

For each task: demonstrations of the scripted expert, training, and 100 held-out tables before and after it, in this
process and without Ray. With `--recorded` the demonstrations go through a LeRobotDataset on disk (`rayward export`).
The policy sees the state with the cube's pose in it, and answers chunks of which the first actions are executed before
it looks again.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from rich.console import Console

from benchmarks.common import Figure, options, report
from configs.bc import BCConfig
from training.export.lerobot import export_episodes
from training.export.robots import CONTROL_HZ, NAMES, expert_episodes
from training.imitation.chunks import Cloned, clone

BARS = {"reach": 0.9, "pick": 0.6}  # success
# What follows a frame on disk is how the expert mended later disturbances, which nobody can foresee: with those of the
# recipes (0.5 and 0.3), whose chunks are undisturbed plans, 0.010 and 0.440 were reached.
RECORDED_NOISE = 0.1


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--tasks", nargs="+", choices=tuple(BARS), default=list(BARS))
    parser.add_argument("--recorded", action="store_true", help="write the demonstrations, and train on what was read")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of configs/bc/arm_TASK.yaml")
    chosen = parser.parse_args()
    report(
        "arm_recorded" if chosen.recorded else "arm",
        [figure for task in chosen.tasks for figure in cloned(task, chosen.set, chosen.recorded)],
        chosen,
    )


def cloned(task: str, overrides: list[str], recorded: bool) -> list[Figure]:
    """Trains a task by its configuration's recipe."""
    console, began = Console(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        file, overrides = f"configs/bc/arm_{task}.yaml", [*overrides, f"output={Path(folder) / task}"]
        if recorded:
            overrides.insert(0, f"demonstrations.noise={RECORDED_NOISE}")
            dataset, shown = Path(folder) / "dataset", expert_episodes(BCConfig.load(file, overrides))
            export_episodes(shown, dataset, CONTROL_HZ["arm"], "arm", NAMES["arm"])
            overrides.append(f"demonstrations.dataset={dataset}")
        config = BCConfig.load(file, overrides)
        result = clone(config, lambda step, steps, loss: console.print(f"{task}: {step}/{steps}, loss {loss:.4f}"))
    return figures(task, result, (time.perf_counter() - began) / 60)


def figures(task: str, result: Cloned, minutes: float) -> list[Figure]:
    gap = result.trained.low - result.untrained.high
    return [
        Figure(f"{task}, untrained", result.untrained.value, "success"),
        Figure(f"{task}, untrained: interval to", result.untrained.high, "success"),
        Figure(f"{task}, trained", result.trained.value, "success", BARS[task]),
        Figure(f"{task}, trained: interval from", result.trained.low, "success"),
        Figure(f"{task}, trained: interval to", result.trained.high, "success"),
        Figure(f"{task}, lower end of trained less upper end of untrained", gap, "success", 0.0),
        Figure(f"{task}, demonstrations, training and evaluation", minutes, "minutes"),
    ]


if __name__ == "__main__":
    main()
