"""Do sampler and learner give the same tokens the same log-probabilities, and does the sampler draw from what it
reports? Pure: numbers in, a verdict out. The doctor and every update ask the same questions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from configs.base import UserError
from training.checks.alarms import Alarm

Scores = list[list[float]]  # one list a sequence, one log-probability a chosen token

EXPLAINS = 0.7  # in a narrow type, another cause explains a difference when the mean falls to this share of it


class NothingSampled(UserError):
    """There is no token to compare."""


@dataclass(frozen=True)
class Fit:
    """Differences sampler - learner over all tokens, in nats: the largest and the mean of their absolute values, and
    the signed mean with its standard error. Rounding is unbiased; most faults are not."""

    largest: float
    mean: float
    bias: float
    bias_error: float

    @classmethod
    def from_sums(cls, tokens: float, total: float, absolute: float, squared: float, largest: float) -> Fit:
        """From sums over `tokens` tokens: of the differences, of their absolute values, of their squares."""
        bias = total / tokens
        return cls(largest, absolute / tokens, bias, math.sqrt(max(squared / tokens - bias * bias, 0.0) / tokens))

    @classmethod
    def of(cls, sampler: Scores, learner: Scores) -> Fit:
        """Raises NothingSampled when there is no token."""
        flat = [a - b for s, m in zip(sampler, learner, strict=True) for a, b in zip(s, m, strict=True)]
        if not flat:
            raise NothingSampled("nothing was sampled: no token to compare")
        bias = sum(flat) / len(flat)
        variance = sum((value - bias) ** 2 for value in flat) / len(flat)
        sizes = [abs(value) for value in flat]
        return cls(max(sizes), sum(sizes) / len(flat), bias, math.sqrt(variance / len(flat)))


@dataclass(frozen=True)
class Tolerance:
    """What rounding alone may do, in the narrower of the two types. In float32 every token counts; a narrower type is
    judged by mean and bias, because single tokens of it are far off (`largest` is then only a guard)."""

    dtypes: str  # as a message names them
    largest: float
    mean: float
    bias: float
    explained: float  # another cause explains a difference when it leaves less than this; narrow types: see EXPLAINS
    narrow: bool = False

    @classmethod
    def between(cls, engine: str, learner: str) -> Tolerance:
        """For an engine and a learner that compute in these types (float32, float16, bfloat16)."""
        widest = max((engine, learner), key=list(LIMITS).index)
        return replace(LIMITS[widest], dtypes=f"engine {engine}, learner {learner}")

    def allows(self, fit: Fit) -> bool:
        biased = abs(fit.bias) > self.bias + 3 * fit.bias_error
        return fit.largest <= self.largest and fit.mean <= self.mean and not biased

    def misfit(self, fit: Fit) -> float:
        """What another cause has to make small."""
        return fit.mean if self.narrow else fit.largest

    def explains(self, other: Fit, fit: Fit) -> bool:
        """Whether `other`, the fit under another assumption, accounts for `fit`."""
        if self.narrow:
            return other.mean <= self.mean and other.mean < EXPLAINS * fit.mean
        return other.largest < self.explained


# Measured with one real model of 135 M parameters, healthy: bfloat16 largest 0.23, mean 0.047, unbiased;
# float32 1.6e-6. float16 has three more bits than bfloat16. In the order of their widths.
LIMITS = {
    "float32": Tolerance("", largest=1e-4, mean=1e-4, bias=1e-4, explained=1e-3),
    "float16": Tolerance("", largest=0.3, mean=0.02, bias=0.005, explained=0.02, narrow=True),
    "bfloat16": Tolerance("", largest=1.0, mean=0.1, bias=0.02, explained=0.1, narrow=True),
}
FLOAT32 = Tolerance.between("float32", "float32")


RUN_DEVIATIONS = 6.0  # of the bias, in a check of every update: chance must not end a run of a million


def agreement_alarm(fit: Fit, tolerance: Tolerance) -> Alarm | None:
    """For the tokens of one update that were sampled with the learner's own weights. Looser than the doctor where a
    single unlikely token could end a healthy run: by mean and bias, the largest difference only as a guard."""
    limit = tolerance if tolerance.narrow else replace(tolerance, largest=100 * tolerance.largest)
    biased = abs(fit.bias) > limit.bias + RUN_DEVIATIONS * fit.bias_error
    if fit.largest <= limit.largest and fit.mean <= limit.mean and not biased:
        return None
    return Alarm(
        "agreement",
        f"the learner gives the sampled tokens other log-probabilities than the sampler did, with the same weights "
        f"({tolerance.dtypes}: largest difference {fit.largest:.2g} nats, mean {fit.mean:.2g}, bias {fit.bias:+.2g}; "
        f"rounding allows a mean of {limit.mean:g} and a bias of {limit.bias:g}): `rayward doctor` names the cause",
    )


@dataclass(frozen=True)
class Surprise:
    """By how much the sampler's tokens are less likely than the learner's distributions make them on the average: the
    mean of (-log p - entropy) over tokens, in nats, and how many standard deviations that is. Its expectation is 0 for
    a sampler that draws from these distributions, since each token has an expectation of 0 whatever came before."""

    mean: float
    deviations: float
    tokens: int

    @classmethod
    def of(cls, scores: Sequence[Sequence[float]], entropies: Sequence[Sequence[float]]) -> Surprise:
        """Of chosen tokens, one list a sequence each."""
        excess = [-p - h for s, e in zip(scores, entropies, strict=True) for p, h in zip(s, e, strict=True)]
        total, squares = sum(excess), sum(value * value for value in excess)
        return cls(total / max(len(excess), 1), total / math.sqrt(squares + 1e-12), len(excess))

    def alarm(self) -> Alarm | None:
        if abs(self.deviations) <= SURPRISED or abs(self.mean) <= SURPRISING:
            return None
        return Alarm(
            "surprise",
            f"the sampled tokens are {self.mean:+.3f} nats less likely than the learner's own distributions make them "
            f"on the average ({self.deviations:+.1f} standard deviations over {self.tokens} tokens): the sampler draws "
            "from another distribution than it reports",
        )


SURPRISED = 5.0  # standard deviations: by chance once in a million examinations
SURPRISING = 0.005  # nats; what rounding may add up to in many tokens
