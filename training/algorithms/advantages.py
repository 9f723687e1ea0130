"""How much better an answer was than its siblings. Pure: returns of a group in, advantages out."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def group_centered(returns_G: Sequence[float]) -> list[float]:
    """A_i = R_i - mean(R) (Dr. GRPO, arXiv 2503.20783). No division by the standard deviation: it would weigh up groups
    that are nearly all right or all wrong.

    >>> group_centered([1.0, 0.0, 0.0, 1.0])
    [0.5, -0.5, -0.5, 0.5]
    """
    center = sum(returns_G) / len(returns_G)
    return [value - center for value in returns_G]


def group_normalized(returns_G: Sequence[float], epsilon: float = 1e-4) -> list[float]:
    """A_i = (R_i - mean(R)) / (std(R) + epsilon), population standard deviation (GRPO, arXiv 2402.03300).

    >>> [round(a, 3) for a in group_normalized([2.0, 0.0])]
    [1.0, -1.0]
    """
    centered = group_centered(returns_G)
    deviation = (sum(value * value for value in centered) / len(centered)) ** 0.5
    return [value / (deviation + epsilon) for value in centered]


def leave_one_out(returns_G: Sequence[float]) -> list[float]:
    """A_i = R_i - mean of the others (RLOO, arXiv 2402.14740): an unbiased baseline.

    >>> leave_one_out([1.0, 0.0, 0.0])
    [1.0, -0.5, -0.5]
    """
    size = len(returns_G)
    if size < 2:
        raise ValueError("leave_one_out needs at least two siblings")
    return [size / (size - 1) * value for value in group_centered(returns_G)]


ADVANTAGES: dict[str, Callable[[Sequence[float]], list[float]]] = {
    "group_centered": group_centered,
    "group_normalized": group_normalized,
    "leave_one_out": leave_one_out,
}
