"""Does the learner score what the replicas sample? The largest difference in log-probability, and its named cause."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Scores = list[list[float]]  # one list a sequence, one log-probability a chosen token
TOLERANCE = 1e-4  # float32
TEMPERATURES = (0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0)


@dataclass(frozen=True)
class Report:
    """Differences sampler - learner over all tokens, by position in the answer, and why."""

    max_difference: float
    mean_difference: float
    by_position: tuple[tuple[float, float], ...]  # (max, mean) of |difference|
    cause: str  # "" when within the tolerance

    @property
    def healthy(self) -> bool:
        return not self.cause


def diagnose(
    sampler: Scores,
    score: Callable[[float], Scores],
    temperature: float,
    versions: Sequence[int],
    expected_version: int,
    tolerance: float = TOLERANCE,
) -> Report:
    """Compares the sampler's log-probabilities with `score(temperature)`, the learner's at a temperature.

    Causes are tried in the order in which they explain each other: stale weights (an answer of another version), wrong
    temperature (another temperature fits), truncated sampling (the sampler's probabilities are higher throughout, as
    top_p, top_k and min_p make them by leaving tokens out), else unknown.
    """
    learner = score(temperature)
    differences = [[a - b for a, b in zip(s, m, strict=True)] for s, m in zip(sampler, learner, strict=True)]
    flat = [value for row in differences for value in row]
    if not flat:
        raise ValueError("nothing was sampled: no token to compare")
    worst = max(map(abs, flat))
    cause = ""
    if worst > tolerance:
        cause = _cause(sampler, score, temperature, versions, expected_version, flat, tolerance)
    return Report(worst, sum(map(abs, flat)) / len(flat), _by_position(differences), cause)


def _cause(
    sampler: Scores,
    score: Callable[[float], Scores],
    temperature: float,
    versions: Sequence[int],
    expected_version: int,
    flat: Sequence[float],
    tolerance: float,
) -> str:
    stale = sorted({version for version in versions if version != expected_version})
    if stale:
        return (
            f"stale weights: answers came from version {', '.join(map(str, stale))}, the learner holds "
            f"{expected_version}; send min_weight_version"
        )
    fitting = [t for t in TEMPERATURES if t != temperature and _largest(sampler, score(t)) < max(tolerance, 1e-3)]
    if fitting:
        return f"wrong temperature: the sampler used {fitting[0]:g}, the learner divides by {temperature:g}"
    if min(flat) > -tolerance:
        return (
            "truncated sampling: the sampler's probabilities are higher throughout; "
            "sample with top_p 1, top_k 0, min_p 0 and without a grammar"
        )
    return (
        "stale weights or another model: no temperature and no truncation explains it; publish the learner's "
        "weights again and compare the model folders"
    )


def _largest(sampler: Scores, learner: Scores) -> float:
    return max(abs(a - b) for s, m in zip(sampler, learner, strict=True) for a, b in zip(s, m, strict=True))


def _by_position(differences: Scores) -> tuple[tuple[float, float], ...]:
    found = []
    for position in range(max(map(len, differences))):
        values = [abs(row[position]) for row in differences if len(row) > position]
        found.append((max(values), sum(values) / len(values)))
    return tuple(found)
