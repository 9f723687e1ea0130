"""What does the coordinator cost? `python -m benchmarks.coordinator [--check]`.

10,000 episodes of 4,000 tokens pass a real Coordinator in 10 steps: a stand-in worker delivers finished groups as fast
as Ray takes them, a stand-in learner asks for one batch after another. Counted: the time from the first group asked for
to the last batch given, and the peak memory of the coordinator's process. The tokens never pass through it: the learner
fetches them from where they were made, which is timed apart.
"""

from __future__ import annotations

import resource
import time
from typing import Any

import numpy as np
import ray

from benchmarks.common import Figure, options, report
from configs.training import TrainConfig
from training.cluster import ray_session
from training.rollouts.batch import assemble, fetched
from training.rollouts.coordinator import RunCoordinator
from training.rollouts.packed import GroupSamples, PackedTurns
from training.types import EpisodeSummary, GroupSummary, Task

EPISODES, TOKENS, GROUP, STEPS = 10_000, 4_000, 8, 10
CHOSEN = 1_000  # of the tokens of an episode


@ray.remote
class SyntheticWorker:
    """Answers like a RolloutWorker, with groups that were played before the clock started."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        mask = np.tile(np.repeat(np.array([0, 1], np.int8), [TOKENS - CHOSEN, CHOSEN]), GROUP)
        ids = rng.integers(0, 50_000, GROUP * TOKENS, dtype=np.int32)
        logp = -rng.random(GROUP * TOKENS, dtype=np.float32) * mask
        returns = np.arange(GROUP, dtype=np.float64) % 2
        one_each = np.ones(GROUP, np.int64)
        turns = PackedTurns(one_each, np.full(GROUP, TOKENS), returns, one_each)
        lengths, versions = np.full(GROUP, TOKENS), np.zeros(GROUP, np.int64)
        self._samples = GroupSamples(ids, mask, logp, lengths, versions, np.arange(GROUP), returns, turns)

    @ray.method(num_returns=3)
    async def play(self, task: Task, *_: Any) -> tuple[GroupSummary, GroupSamples, None]:
        episodes = tuple(
            EpisodeSummary(
                float(sibling % 2), "completed", None, True, 35, 0, CHOSEN, (TOKENS,), 0, 1.0, sequence_turns=(1,)
            )
            for sibling in range(GROUP)
        )
        return GroupSummary(task, episodes), self._samples, None

    def stuck(self) -> None:
        return None

    def counts(self) -> dict[str, int]:
        return {}


class MeasuredCoordinator(RunCoordinator):
    def _start_worker(self, model_folder: str, app: str) -> Any:
        return SyntheticWorker.options(num_cpus=0.25, max_concurrency=4096).remote()  # type: ignore[attr-defined]

    async def usage(self) -> tuple[float, float]:
        """(CPU seconds so far, peak resident memory in MB) of this process."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def measure() -> list[Figure]:
    per_step = EPISODES // GROUP // STEPS
    rollout = {"groups_per_step": per_step, "group_size": GROUP, "max_policy_lag_steps": STEPS}
    config = TrainConfig.parse({"steps": STEPS, "rollout": rollout})
    coordinator = ray.remote(MeasuredCoordinator).options(num_cpus=0.5, max_concurrency=1000)
    handle = coordinator.remote(config.dump(), "", "")
    ray.get(handle.counts.remote())  # both processes are up
    cpu_before, _ = ray.get(handle.usage.remote())
    passing_s = fetching_s = 0.0
    trained = 0
    began = time.perf_counter()
    ray.get(handle.begin.remote(0, 0))
    for step in range(STEPS):
        share = ray.get(handle.next_batch.remote(step))
        passing_s += time.perf_counter() - began
        began = time.perf_counter()
        trained += len(assemble(share, fetched(share, ray.get)).samples)
        fetching_s += time.perf_counter() - began
        began = time.perf_counter()
        del share
    cpu_after, peak_mb = ray.get(handle.usage.remote())
    assert trained == EPISODES, f"{trained} of {EPISODES} episodes came through"
    return [
        Figure("10,000 episodes of 4,000 tokens pass", passing_s, "s", 3.0, lower_is_better=True),
        Figure("peak memory of the coordinator", peak_mb, "MB", 500.0, lower_is_better=True),
        Figure("CPU time of the coordinator", cpu_after - cpu_before, "s"),
        Figure("the learner fetches their tokens", fetching_s, "s"),
    ]


def main() -> None:
    chosen = options(__doc__ or "").parse_args()
    with ray_session.ray_session():
        figures = measure()
    report("coordinator", figures, chosen)


if __name__ == "__main__":
    main()
