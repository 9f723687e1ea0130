"""Which sequences to put into one forward pass, and what of them to compute only once. Pure.

Siblings begin with the same prompt, and all episodes of an environment with the same instructions. In a causal model
nothing behind a beginning changes what is computed for it. In small games, whole turns are played again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.types import Sample

Array = NDArray[Any]
Computed = tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[tuple[int, ...], bytes], ...]]

COPY = 1 / 8  # a beginning's keys and values are copied for each sequence: about so much of a token's activations
WORTH = 0.9  # two passes instead of one take longer than their tokens tell: less than a tenth is not worth it


@dataclass(frozen=True)
class Part:
    """Sequences of one forward pass, by position, and how many first tokens are computed once for each kind of
    beginning; 0: nothing is shared."""

    members: tuple[int, ...]
    shared: int
    cost: float  # in tokens, padding included


def parts(samples: Sequence[Sample], max_tokens: int, twins: bool, beginnings: bool) -> list[Part]:
    """Every sample once, in parts that cost `max_tokens` at most; a sample that alone costs more is a part. With
    `twins`, equal samples are in one part and cost what one of them does."""
    if not twins:
        return _parts(samples, max_tokens, beginnings)
    same: dict[Computed, list[int]] = {}
    for index, sample in enumerate(samples):
        same.setdefault(what_is_computed(sample), []).append(index)
    of_each = list(same.values())
    found = _parts([samples[first] for first, *_ in of_each], max_tokens, beginnings)
    return [replace(part, members=tuple(i for each in part.members for i in of_each[each])) for part in found]


def what_is_computed(sample: Sample) -> Computed:
    """All that a forward pass depends on: samples for which it is equal are equal to the model."""
    return tuple(sample.token_ids_T), tuple(sample.mask_T), tuple((i.shape, i.tobytes()) for i in sample.images)


def _parts(samples: Sequence[Sample], max_tokens: int, beginnings: bool) -> list[Part]:
    """Of two orders the one that costs less in all: by length, for little padding; and by prompt, for long common
    beginnings."""
    ids = [np.asarray(sample.token_ids_T) for sample in samples]
    by_length = sorted(range(len(samples)), key=lambda i: len(ids[i]))
    plain = _cut(ids, [0] * len(ids), by_length, max_tokens)
    if not beginnings:
        return plain
    # The token before the first chosen one predicts it: it is not shared.
    limits = [first_chosen(sample) - 1 for sample in samples]
    by_prompt = sorted(range(len(samples)), key=lambda i: (ids[i][: limits[i] + 1].tolist(), len(ids[i])))
    shared = _cut(ids, limits, by_prompt, max_tokens)
    return min(plain, shared, key=lambda found: sum(part.cost for part in found))


def first_chosen(sample: Sample) -> int:
    return int(np.argmax(sample.mask_T))


def _cut(ids: Sequence[Array], limits: Sequence[int], order: Sequence[int], max_tokens: int) -> list[Part]:
    """Parts of neighbours in `order`, by which sequences with a common beginning are neighbours. `limits`: the most
    first tokens of each sequence that may be shared."""
    found: list[Part] = []
    kinds = np.ones(1)  # of the open part: how many different beginnings it has, for each length of them
    longest = 0
    for index in order:
        if found:
            members = found[-1].members
            lengths = np.arange(min(len(kinds), limits[index] + 1))
            grown = kinds[: len(lengths)] + (lengths > _common(ids[members[-1]], ids[index]))
            shared, cost = _cheapest(grown, len(members) + 1, max(longest, len(ids[index])))
            if cost <= max_tokens:
                found[-1] = Part((*members, index), shared, cost)
                kinds, longest = grown, max(longest, len(ids[index]))
                continue
        found.append(Part((index,), 0, float(len(ids[index]))))
        kinds, longest = np.ones(limits[index] + 1), len(ids[index])
    return found


def _cheapest(kinds: Array, count: int, longest: int) -> tuple[int, float]:
    """The length of beginnings at which `count` sequences cost least, and that cost."""
    lengths = np.arange(len(kinds))
    costs = lengths * kinds + count * (longest - lengths) + COPY * count * lengths
    best, plain = int(costs.argmin()), float(count * longest)
    return (best, float(costs[best])) if costs[best] < WORTH * plain else (0, plain)


def _common(one: Array, other: Array) -> int:
    """How many first tokens two sequences have in common."""
    length = min(len(one), len(other))
    differs = one[:length] != other[:length]
    return int(np.argmax(differs)) if differs.any() else length
