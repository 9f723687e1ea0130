"""How many steps per second does an environment take on one core? Those of `cave` draw a picture of 64 x 64 pixels."""

from __future__ import annotations

import random
import statistics
import time
from importlib.util import find_spec
from typing import Any

from benchmarks.common import Figure, options, report
from envs import registry
from envs.pixels.game_actions import as_json

ANSWERS = {
    "tictactoe": [f"<move>{cell}</move>" for cell in range(1, 10)],
    "key_door": [f"<action>{word}</action>" for word in ("up", "down", "left", "right", "interact")],
    "cave": [as_json([key], yaw=yaw) for key in ("forward", "left", "back", "jump") for yaw in (-30.0, 0.0, 15.0)],
    "wordle": [f"<guess>{word}</guess>" for word in ("crane", "moldy", "fight", "bumps", "vivid", "query", "jokes")],
}


BARS = dict.fromkeys(ANSWERS, 20_000) | {"cave": 2_000}
# Environments with a simulator: nothing is asked of them.
ARM = [f"<action>[0.02, {y}, -0.03, 0, 0, 0.1, {g}]</action>" for y in (-0.03, 0.03) for g in (0, 1)]
SIMULATED: dict[str, dict[str, Any]] = {
    "no camera": {"camera": False},
    "64 x 64": {"side": 64},
    "256 x 256": {"side": 256},
}


def steps_per_s(name: str, answers: list[str], steps: int, **settings: Any) -> float:
    """Random answers, episodes one after the other, resets included. Per second of the process's own time on a core, so
    that what else runs on the machine counts less."""
    env, rng, done, episode = registry.make(name, **settings), random.Random(0), 0, 0
    began = time.process_time()
    while done < steps:
        env.reset(episode)
        episode += 1
        over = False
        while not over:
            result = env.step(rng.choice(answers))
            done += 1
            over = result.terminated or result.truncated
    return done / (time.process_time() - began)


if __name__ == "__main__":
    chosen = options(__doc__ or "").parse_args()
    rounds = [{name: steps_per_s(name, answers, BARS[name]) for name, answers in ANSWERS.items()} for _ in range(5)]
    medians = {name: statistics.median(r[name] for r in rounds) for name in ANSWERS}
    figures = [Figure(name, value, "steps/s", BARS[name]) for name, value in medians.items()]
    if find_spec("mujoco"):
        for what, settings in SIMULATED.items():
            figures.append(Figure(f"arm, {what}", steps_per_s("arm", ARM, 500, **settings), "steps/s"))
    report("env_throughput", figures, chosen)
