"""Intervals for what an evaluation measured. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

Z95 = statistics.NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def proportion(successes: int, trials: int) -> Estimate:
    """Share with the Wilson score interval (Wilson 1927), which also holds near 0 and 1.

    >>> str(proportion(50, 100))
    '0.500 [0.404, 0.596]'
    """
    if trials < 1:
        raise ValueError("a proportion needs at least one trial")
    share, z2 = successes / trials, Z95**2
    center = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return Estimate(share, max(0.0, center - half), min(1.0, center + half))


def mean(values: Sequence[float]) -> Estimate:
    """Mean with the normal-approximation interval."""
    center = statistics.fmean(values)
    half = Z95 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return Estimate(center, center - half, center + half)


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Mean of second - first over the same situations. Pairing removes the spread between the situations."""
    if len(first) != len(second):
        raise ValueError(f"pairs need equal lengths, got {len(first)} and {len(second)}")
    return mean([b - a for a, b in zip(first, second, strict=True)])
