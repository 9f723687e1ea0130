"""Does the main job make policies better? `python -m benchmarks.quickstart --seeds 3 [--env tictactoe] [--check]`.

Warm start, GRPO through a served replica and evaluation, each seed from its own random weights and demonstrations. The
seeds of an environment share one replica, whose start is the slow part; `--longer` trains for the longer recipe.
"""

from __future__ import annotations

from benchmarks.common import Figure, options, report
from benchmarks.learning import Learned, intervals, learned, shares
from training.commands.quickstart import CONFIGS

LONGER = {"tictactoe": "configs/train/tictactoe_long.yaml", "key_door": "configs/train/key_door_long.yaml"}
BARS = {"tictactoe": 0.80, "key_door": 0.70}
LONGER_BAR = 0.90
GAIN = {"tictactoe": 0.0, "key_door": 0.15}


def judge(env: str, longer: bool, one: Learned) -> list[Figure]:
    gain = one.trained.success.value - one.warm.success.value
    return [
        *shares(env, one, LONGER_BAR if longer else BARS[env]),
        Figure(f"{env} seed {one.seed}, gain", gain, "success", GAIN[env]),
        intervals(env, one),
    ]


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--env", choices=(*CONFIGS, "both"), default="both")
    parser.add_argument("--longer", action="store_true")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="a.b=value of the configuration")
    chosen = parser.parse_args()
    envs = tuple(CONFIGS) if chosen.env == "both" else (chosen.env,)
    files = LONGER if chosen.longer else CONFIGS
    figures = [
        figure
        for env in envs
        for one in learned(files[env], chosen.seeds, chosen.overrides)
        for figure in judge(env, chosen.longer, one)
    ]
    name = "quickstart_longer" if chosen.longer else "quickstart"
    report(name if chosen.env == "both" else f"{name}_{chosen.env}", figures, chosen)


if __name__ == "__main__":
    main()
