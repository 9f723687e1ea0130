"""Does the learner score what the replicas sample? The largest difference in log-probability, and its named cause.

`diagnose` and `template_drift` are pure; `check_episodes` is the part with a model. None of them needs Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from configs.base import UserError

Scores = list[list[float]]  # one list a sequence, one log-probability a chosen token


Scorer = Callable[[float], Scores]  # the learner's scores at a temperature


Prompt = tuple[tuple[int, ...], tuple[int, ...]]  # (ids that the sampler was given, ids that the learner renders)


TOLERANCE = 1e-4  # float32


TOLERANCE_BFLOAT16 = 5e-2  # 8 bits of mantissa, on logits of about 10


EXPLAINED = 1e-3  # another cause explains a difference when it leaves no more than this (or than the tolerance)


TEMPERATURES = (0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0)


class NothingSampled(UserError):
    """There is no token to compare."""


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


def template_drift(prompts: Sequence[Prompt]) -> str:
    """Names the first prompt whose ids differ between sampler and learner, "" when all are equal."""
    drifted = [(index, *pair) for index, pair in enumerate(prompts) if pair[0] != pair[1]]
    if not drifted:
        return ""
    index, sent, rendered = drifted[0]
    length = min(len(sent), len(rendered))
    position = next((at for at in range(length) if sent[at] != rendered[at]), length)
    return (
        f"template drift: {len(drifted)} of {len(prompts)} prompts differ from what the learner's tokenizer renders; "
        f"the first is prompt {index}, from token {position} on ({len(sent)} tokens sent, {len(rendered)} rendered): "
        "give replicas, rollouts and learner the tokenizer and chat template of one model folder"
    )


def diagnose(
    sampler: Scores,
    score: Scorer,
    temperature: float,
    versions: Sequence[int],
    expected_version: int,
    tolerance: float = TOLERANCE,
    other_weights: Mapping[str, Scorer] | None = None,
) -> Report:
    """Compares the sampler's log-probabilities with `score(temperature)`, the learner's at a temperature.

    Causes are tried in the order in which they explain each other: stale weights (an answer of another version, or one
    of `other_weights` fits), wrong temperature (another one fits), truncated sampling (the sampler's probabilities are
    higher throughout, as top_p, top_k and min_p make them by leaving tokens out), else unknown. Raises NothingSampled.
    """
    learner = score(temperature)
    differences = [[a - b for a, b in zip(s, m, strict=True)] for s, m in zip(sampler, learner, strict=True)]
    flat = [value for row in differences for value in row]
    if not flat:
        raise NothingSampled("nothing was sampled: no token to compare")
    worst = max(map(abs, flat))
    cause = ""
    if worst > tolerance:
        explained = max(EXPLAINED, tolerance)
        cause = (
            _stale_version(versions, expected_version)
            or _other_weights(sampler, other_weights or {}, temperature, explained)
            or _other_temperature(sampler, score, temperature, explained)
            or _truncated(flat, tolerance)
            or "stale weights or another model: no temperature and no truncation explains it; publish the learner's "
            "weights again and compare the model folders"
        )
    return Report(worst, sum(map(abs, flat)) / len(flat), _by_position(differences), cause)


def _stale_version(versions: Sequence[int], expected: int) -> str:
    stale = sorted({version for version in versions if version != expected})
    if not stale:
        return ""
    return (
        f"stale weights: answers came from version {', '.join(map(str, stale))}, the learner holds {expected}; "
        "send min_weight_version"
    )


def _other_weights(sampler: Scores, others: Mapping[str, Scorer], temperature: float, explained: float) -> str:
    for name, scorer in others.items():
        if _largest(sampler, scorer(temperature)) < explained:
            return f"stale weights: the replica samples with the weights of {name}; publish the learner's again"
    return ""


def _other_temperature(sampler: Scores, score: Scorer, temperature: float, explained: float) -> str:
    """The nearest of a few temperatures, then a search between its neighbours, to two digits."""

    def misfit(at: float) -> float:
        return _largest(sampler, score(at))

    found = min(TEMPERATURES, key=misfit)
    if misfit(found) >= explained:
        found = _between_neighbours(found, misfit)
    if found == temperature or misfit(found) >= explained:
        return ""
    return f"wrong temperature: the sampler used {found:g}, the learner divides by {temperature:g}"


def _between_neighbours(found: float, misfit: Callable[[float], float]) -> float:
    """Ternary search: the misfit falls towards the sampler's temperature from both sides."""
    position = TEMPERATURES.index(found)
    low = TEMPERATURES[max(position - 1, 0)]
    high = TEMPERATURES[min(position + 1, len(TEMPERATURES) - 1)]
    while high - low > 0.02:
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, right) if misfit(left) < misfit(right) else (left, high)
    middle = (low + high) / 2
    return min((round(middle + offset, 2) for offset in (-0.01, 0.0, 0.01)), key=misfit)


def _truncated(flat: Sequence[float], tolerance: float) -> str:
    if min(flat) <= -tolerance:
        return ""
    return (
        "truncated sampling: the sampler's probabilities are higher throughout; "
        "sample with top_p 1, top_k 0, min_p 0 and without a grammar"
    )


def _largest(sampler: Scores, learner: Scores) -> float:
    return max(abs(a - b) for s, m in zip(sampler, learner, strict=True) for a, b in zip(s, m, strict=True))


def _by_position(differences: Scores) -> tuple[tuple[float, float], ...]:
    found = []
    for position in range(max(map(len, differences))):
        values = [abs(row[position]) for row in differences if len(row) > position]
        found.append((max(values), sum(values) / len(values)))
    return tuple(found)
