"""Runs without a fault: other seeds, histories, losses and corrections. None of them may raise an alarm."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

HISTORIES = ("none", "full")
LOSSES = ("dapo", "grpo", "dr_grpo", "gspo", "cispo")
OFF_POLICY = ("none", "tis", "icepop", "sequence_mask")
ADVANTAGES = ("group_normalized", "group_centered", "leave_one_out")
OTHERS: tuple[tuple[str, ...], ...] = (
    (),
    ("algorithm.kl_coef=0.05",),
    ("algorithm.entropy_coef=0.01",),
    ("rollout.max_policy_lag_steps=1",),
    ("algorithm.drop_uniform_groups=false",),
    ("deterministic=true",),
    ("env.max_turns=2",),
    ("learner.max_tokens_per_microbatch=512", "learner.logprob_chunk_tokens=16"),
    ("sampling.temperature=0.7",),
)


def variations(seed: int = 0) -> Iterator[tuple[str, ...]]:
    """Overrides of one healthy run after the other, without end: each choice in turn, paired by chance."""
    rng = random.Random(seed)
    lists: tuple[tuple[Any, ...], ...] = (HISTORIES, LOSSES, OFF_POLICY, ADVANTAGES, (1, 2), OTHERS)
    turns = [itertools.cycle(rng.sample(list(each), len(each))) for each in lists]
    for number in itertools.count():
        if number % 12 == 0:  # else the lists' lengths would decide which choices ever meet
            turns = [itertools.cycle(rng.sample(list(each), len(each))) for each in lists]
        history, loss, off_policy, advantage, updates, others = (next(turn) for turn in turns)
        yield (
            f"seed={rng.randrange(10**6)}",
            f"env.history={history}",
            f"algorithm.loss={loss}",
            f"algorithm.off_policy={off_policy}",
            f"algorithm.advantage={advantage}",
            f"algorithm.updates_per_batch={updates}",
            *others,
        )
