"""When sampler and learner differ by more than rounding, and when a sampler draws from what it does not report."""

from __future__ import annotations

import math
import random

import pytest

from training.checks.agreement import FLOAT32, Fit, Surprise, Tolerance, agreement_alarm

BFLOAT16 = Tolerance.between("bfloat16", "bfloat16")


def fit(differences: list[float]) -> Fit:
    return Fit.of([differences], [[0.0] * len(differences)])


def noise(size: float, bias: float = 0.0, tokens: int = 2000) -> list[float]:
    rng = random.Random(0)
    return [rng.gauss(bias, size) for _ in range(tokens)]


def test_a_fit_from_sums_is_that_of_the_tokens() -> None:
    differences = noise(0.1, 0.03)
    sums = [
        float(len(differences)), sum(differences), sum(map(abs, differences)), sum(d * d for d in differences),
    ]  # fmt: skip
    summed, direct = Fit.from_sums(*sums, max(map(abs, differences))), fit(differences)
    for name in ("largest", "mean", "bias", "bias_error"):
        assert getattr(summed, name) == pytest.approx(getattr(direct, name))


@pytest.mark.parametrize(("tolerance", "healthy"), [(FLOAT32, noise(2e-6)), (BFLOAT16, noise(0.06))])
def test_rounding_raises_no_alarm(tolerance: Tolerance, healthy: list[float]) -> None:
    assert agreement_alarm(fit(healthy), tolerance) is None


def test_one_unlikely_token_does_not_end_a_float32_run() -> None:
    assert agreement_alarm(fit([*noise(2e-6), 1e-3]), FLOAT32) is None


@pytest.mark.parametrize(
    ("tolerance", "faulty"),
    [(FLOAT32, noise(1e-3)), (FLOAT32, [*noise(2e-6), 0.5]), (BFLOAT16, noise(0.2)), (BFLOAT16, noise(0.06, 0.05))],
    ids=["mean", "guard", "mean of bfloat16", "bias of bfloat16"],
)
def test_more_than_rounding_does(tolerance: Tolerance, faulty: list[float]) -> None:
    alarm = agreement_alarm(fit(faulty), tolerance)
    assert alarm is not None
    assert tolerance.dtypes in alarm.message


def drawn(power: float, tokens: int = 400) -> Surprise:
    """Tokens that are drawn from p**power, and told with p."""
    rng, p = random.Random(1), [0.4, 0.3, 0.2, 0.1]
    entropy = -sum(q * math.log(q) for q in p)
    chosen = rng.choices(p, [q**power for q in p], k=tokens)
    return Surprise.of([[math.log(q) for q in chosen]], [[entropy] * tokens])


def test_tokens_that_are_drawn_from_what_is_told_do_not_surprise() -> None:
    assert drawn(1.0, tokens=20_000).alarm() is None


@pytest.mark.parametrize("power", [2.5, 0.2])
def test_tokens_that_are_drawn_otherwise_do(power: float) -> None:
    alarm = drawn(power).alarm()
    assert alarm is not None
    assert alarm.check == "surprise"


def test_no_token_and_no_entropy_are_no_surprise() -> None:
    assert Surprise.of([[]], [[]]).alarm() is None
    assert Surprise.of([[0.0] * 1000], [[0.0] * 1000]).alarm() is None
