"""Does a tiny Qwen2-VL learn KeyDoor from pictures? `python -m benchmarks.pixels --seeds 3 [--check]`.

12 turns an episode, 200 held-out layouts, temperature 1: warm start, then GRPO through a served replica, on two cores.
"""

from __future__ import annotations

from benchmarks.common import Figure, options, report
from benchmarks.learning import Learned, intervals, learned, shares

CONFIG, ENV = "configs/train/key_door_pixels_tiny.yaml", "key_door_pixels"
BAR, MOST_MINUTES = 0.90, 20.0


def judge(one: Learned) -> list[Figure]:
    *before, _ = shares(ENV, one, BAR)
    duration = Figure(f"{ENV} seed {one.seed}, duration", one.minutes, "minutes", MOST_MINUTES, True)
    return [*before, intervals(ENV, one), duration]


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="a.b=value of the configuration")
    chosen = parser.parse_args()
    results = learned(CONFIG, chosen.seeds, chosen.overrides)
    report("pixels", [figure for one in results for figure in judge(one)], chosen)


if __name__ == "__main__":
    main()
