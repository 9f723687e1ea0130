"""Which sequences to put into one forward pass, and how much of their beginnings to compute only once. Pure.

Siblings begin with the same prompt, and all episodes of an environment with the same instructions. In a causal model
nothing behind a beginning changes what is computed for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from training.types import Sample

COPY = 1 / 8  # a beginning's keys and values are copied for each sequence: about so much of a token's activations
WORTH = 0.9  # two passes instead of one take longer than their tokens tell: less than a tenth is not worth it


@dataclass(frozen=True)
class Part:
    """Sequences of one forward pass, by position, and how many first tokens are computed once for each kind of
    beginning; 0: nothing is shared."""

    members: tuple[int, ...]
    shared: int
    cost: float  # in tokens, padding included


def parts(samples: Sequence[Sample], max_tokens: int, share: bool) -> list[Part]:
    """Every sample once, in parts that cost `max_tokens` at most; a sample that alone costs more is a part. Of two
    orders the one that costs less in all: by length, for little padding; and by prompt, for long common beginnings."""
    by_length = sorted(range(len(samples)), key=lambda i: len(samples[i].token_ids_T))
    plain = _cut(samples, by_length, max_tokens, _unshared)
    if not share:
        return plain
    prompts = [tuple(sample.token_ids_T[: first_chosen(sample)]) for sample in samples]
    by_prompt = sorted(range(len(samples)), key=lambda i: (prompts[i], len(samples[i].token_ids_T)))
    shared = _cut(samples, by_prompt, max_tokens, _shared)
    return min(plain, shared, key=lambda found: sum(part.cost for part in found))


def first_chosen(sample: Sample) -> int:
    return int(np.argmax(sample.mask_T))


@dataclass(frozen=True)
class _Open:
    """A part while it grows: what its cost depends on."""

    longest: int
    limit: int  # the most that may be shared: the token before the first chosen one predicts it
    common: tuple[int, ...]  # how many first tokens each sequence has in common with the one before


def _cut(
    samples: Sequence[Sample], order: Sequence[int], max_tokens: int, cost_of: Callable[[_Open], tuple[int, float]]
) -> list[Part]:
    found: list[Part] = []
    members: list[int] = []
    before: _Open | None = None
    for index in order:
        sample = samples[index]
        length, limit = len(sample.token_ids_T), first_chosen(sample) - 1
        if before is not None:
            common = (*before.common, _common(samples[members[-1]], sample))
            grown = _Open(max(before.longest, length), min(before.limit, limit), common)
            shared, cost = cost_of(grown)
            if cost <= max_tokens:
                members.append(index)
                found[-1], before = Part(tuple(members), shared, cost), grown
                continue
        members, before = [index], _Open(length, limit, ())
        found.append(Part((index,), 0, float(length)))
    return found


def _unshared(part: _Open) -> tuple[int, float]:
    return 0, float((len(part.common) + 1) * part.longest)


def _shared(part: _Open) -> tuple[int, float]:
    """The length of the beginnings that costs least. Sequences are sorted by their beginnings, so those of length n are
    as many as the neighbours that have less than n tokens in common, and one."""
    count = len(part.common) + 1
    lengths = np.arange(max(part.limit, 0) + 1)
    kinds = 1 + np.searchsorted(np.sort(part.common), lengths)
    costs = lengths * kinds + count * (part.longest - lengths) + COPY * count * lengths
    best = int(costs.argmin())
    plain = count * part.longest
    return (best, float(costs[best])) if costs[best] < WORTH * plain else (0, float(plain))


def _common(one: Sample, other: Sample) -> int:
    """How many first tokens two sequences have in common."""
    length = min(len(one.token_ids_T), len(other.token_ids_T))
    differs = np.asarray(one.token_ids_T[:length]) != np.asarray(other.token_ids_T[:length])
    return int(np.argmax(differs)) if differs.any() else length
