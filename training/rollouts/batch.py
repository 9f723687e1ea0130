"""From the groups of a step to each rank's share of the batch. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from training.types import Sample


def split_over_ranks(samples: Sequence[Sample], world: int) -> list[list[Sample]]:
    """Each sample to exactly one rank, longest first to the rank with the fewest tokens so far."""
    shares: list[list[Sample]] = [[] for _ in range(world)]
    loads = [0] * world
    for sample in sorted(samples, key=lambda sample: -len(sample.token_ids_T)):
        rank = loads.index(min(loads))
        shares[rank].append(sample)
        loads[rank] += len(sample.token_ids_T)
    return shares
