"""How many steps per second does an environment take on one core?"""

from __future__ import annotations

import random
import statistics
import time

from benchmarks.common import Figure, options, report
from envs import registry

ANSWERS = {
    "tictactoe": [f"<move>{cell}</move>" for cell in range(1, 10)],
    "key_door": [f"<action>{word}</action>" for word in ("up", "down", "left", "right", "interact")],
    "wordle": [f"<guess>{word}</guess>" for word in ("crane", "moldy", "fight", "bumps", "vivid", "query", "jokes")],
}


def steps_per_s(name: str, steps: int) -> float:
    """Random answers, episodes one after the other, resets included."""
    env, rng, done, episode = registry.make(name), random.Random(0), 0, 0
    began = time.perf_counter()
    while done < steps:
        env.reset(episode)
        episode += 1
        over = False
        while not over:
            result = env.step(rng.choice(ANSWERS[name]))
            done += 1
            over = result.terminated or result.truncated
    return done / (time.perf_counter() - began)


if __name__ == "__main__":
    chosen = options(__doc__ or "").parse_args()
    rounds = [{name: steps_per_s(name, 20_000) for name in ANSWERS} for _ in range(5)]
    medians = {name: statistics.median(r[name] for r in rounds) for name in ANSWERS}
    report("env_throughput", [Figure(name, value, "steps/s", 20_000) for name, value in medians.items()], chosen)
