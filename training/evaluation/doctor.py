"""Does the learner score what the replicas sample? The largest difference in log-probability, and its named cause.

`diagnose` and `template_drift` are pure; `check_episodes` is the part with a model. None of them needs Ray.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from training.checks.agreement import EXPLAINS, FLOAT32, Fit, Scores, Tolerance

Scorer = Callable[[float], Scores]  # the learner's scores at a temperature


Prompt = tuple[tuple[int, ...], tuple[int, ...]]  # (ids that the sampler was given, ids that the learner renders)


TEMPERATURES = (0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0)


@dataclass(frozen=True)
class Report:
    """Differences sampler - learner over all tokens, by position in the answer, and why."""

    fit: Fit
    tolerance: Tolerance
    by_position: tuple[tuple[float, float], ...]  # (max, mean) of |difference|
    cause: str  # "" when within the tolerance

    @property
    def max_difference(self) -> float:
        return self.fit.largest

    @property
    def mean_difference(self) -> float:
        return self.fit.mean

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
    tolerance: Tolerance = FLOAT32,
    other_weights: Mapping[str, Scorer] | None = None,
) -> Report:
    """Compares the sampler's log-probabilities with `score(temperature)`, the learner's at a temperature.

    Causes are tried from most to least specific; the first that fits is reported: stale weights (an answer of another
    version, or one of `other_weights` fits), wrong temperature (another one fits), truncated sampling (the sampler's
    probabilities are higher throughout, as top_p, top_k and min_p make them by leaving tokens out), else unknown. In a
    narrow type the specific ones are tried even when rounding could be all: it hides small faults. Raises
    NothingSampled.
    """
    learner = score(temperature)
    fit = Fit.of(sampler, learner)
    allowed = tolerance.allows(fit)
    cause = ""
    if tolerance.narrow or not allowed:
        cause = (
            _stale_version(versions, expected_version)
            or _other_weights(sampler, other_weights or {}, temperature, fit, tolerance)
            or _other_temperature(sampler, score, temperature, fit, tolerance)
        )
    if not allowed and not cause:
        cause = _truncated(sampler, learner, fit, tolerance) or (
            f"stale weights or another model: no temperature and no truncation explains it ({tolerance.dtypes}: "
            f"largest difference {fit.largest:.2g}, mean {fit.mean:.2g}, bias {fit.bias:+.2g}; rounding allows "
            f"{tolerance.largest:g}, {tolerance.mean:g}, {tolerance.bias:g}); publish the learner's weights again and "
            "compare the model folders"
        )
    return Report(fit, tolerance, _by_position(sampler, learner), cause)


def _stale_version(versions: Sequence[int], expected: int) -> str:
    stale = sorted({version for version in versions if version != expected})
    if not stale:
        return ""
    return (
        f"stale weights: answers came from version {', '.join(map(str, stale))}, the learner holds {expected}; "
        "send min_weight_version"
    )


def _other_weights(
    sampler: Scores, others: Mapping[str, Scorer], temperature: float, fit: Fit, tolerance: Tolerance
) -> str:
    for name, scorer in others.items():
        if tolerance.explains(Fit.of(sampler, scorer(temperature)), fit):
            return f"stale weights: the replica samples with the weights of {name}; publish the learner's again"
    return ""


def _other_temperature(sampler: Scores, score: Scorer, temperature: float, fit: Fit, tolerance: Tolerance) -> str:
    """The nearest of a few temperatures, then a search between its neighbours, to two digits."""

    @functools.cache
    def fit_at(at: float) -> Fit:
        return Fit.of(sampler, score(at))

    def misfit(at: float) -> float:
        return tolerance.misfit(fit_at(at))

    found = min(TEMPERATURES, key=misfit)
    if tolerance.narrow or misfit(found) >= tolerance.explained:
        found = min(found, _between_neighbours(found, misfit), key=misfit)
    if found == temperature or not tolerance.explains(fit_at(found), fit):
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


def _truncated(sampler: Scores, learner: Scores, fit: Fit, tolerance: Tolerance) -> str:
    """Leaving tokens out raises the others: no difference is negative, but for rounding, which hardly changes then that
    the bias is the mean."""
    lowest = min(a - b for s, m in zip(sampler, learner, strict=True) for a, b in zip(s, m, strict=True))
    throughout = fit.bias > EXPLAINS * fit.mean if tolerance.narrow else lowest > -tolerance.largest
    if not throughout:
        return ""
    return (
        "truncated sampling: the sampler's probabilities are higher throughout; "
        "sample with top_p 1, top_k 0, min_p 0 and without a grammar"
    )


def _by_position(sampler: Scores, learner: Scores) -> tuple[tuple[float, float], ...]:
    differences = [[abs(a - b) for a, b in zip(s, m, strict=True)] for s, m in zip(sampler, learner, strict=True)]
    found = []
    for position in range(max(map(len, differences))):
        values = [row[position] for row in differences if len(row) > position]
        found.append((max(values), sum(values) / len(values)))
    return tuple(found)
