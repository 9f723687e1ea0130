"""Siblings that answer alike too often, and siblings that began differently."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from training.checks.siblings import SiblingAnswers, starts_alarm
from training.types import EpisodeSummary

CHOICES = (0.5, 0.3, 0.1, 0.1)


def group(answers: list[int], version: int = 0, told: Callable[[float], float] = lambda p: p) -> list[EpisodeSummary]:
    """Siblings whose first answers are these of CHOICES."""
    return [
        EpisodeSummary(
            0.0, "completed", None, False, 1, 0, 1, (2,), version, 0.0,
            first_prompt=7, first_answer=a, first_logp=math.log(told(CHOICES[a])), first_version=version,
        )
        for a in answers
    ]  # fmt: skip


def played(draw: Callable[[random.Random], list[int]], groups: int = 200) -> SiblingAnswers:
    rng = random.Random(0)
    return SiblingAnswers().with_groups(group(draw(rng)) for _ in range(groups))


def independent(rng: random.Random) -> list[int]:
    return rng.choices(range(4), CHOICES, k=4)


def test_independent_siblings_raise_no_alarm() -> None:
    assert played(independent, groups=5000).alarm() is None


def test_siblings_that_share_their_noise_are_noticed_within_a_few_groups() -> None:
    alarm = played(lambda rng: rng.choices(range(4), CHOICES) * 4, groups=30).alarm()
    assert alarm is not None
    assert alarm.check == "sibling answers"
    assert "90 times in 90 pairs" in alarm.message


def test_a_sampler_that_prefers_the_likelier_is_noticed() -> None:
    def sharpened(rng: random.Random) -> list[int]:
        return rng.choices(range(4), [p**2 for p in CHOICES], k=4)

    assert played(sharpened, groups=400).alarm() is not None


def test_siblings_that_never_agree_are_noticed_too() -> None:
    assert played(lambda rng: [0, 1, 2, 3], groups=200).alarm() is not None


def test_a_policy_that_is_sure_agrees_with_itself_without_an_alarm() -> None:
    sure = [
        [EpisodeSummary(0.0, "completed", None, False, 1, 0, 1, (2,), 0, 0.0, first_logp=-1e-4) for _ in range(8)]
        for _ in range(1000)
    ]
    assert SiblingAnswers().with_groups(sure).alarm() is None


def test_pairs_with_other_weights_are_left_out() -> None:
    mixed = [group([0], version=1) + group([0, 0, 0], version=2)]
    assert SiblingAnswers().with_groups(mixed).pairs == 0


def test_siblings_that_began_differently_are_named_with_their_seed() -> None:
    assert starts_alarm([(1, 2), (1, 2)], seed=9) is None
    alarm = starts_alarm([(1, 2), (1, 3), (1, 2)], seed=9)
    assert alarm is not None
    assert "2 different first prompts in a group of 3 siblings with seed 9" in alarm.message


@pytest.mark.parametrize("far", [-500.0, -1e9])
def test_an_answer_of_no_probability_is_no_division_by_zero(far: float) -> None:
    one = [EpisodeSummary(0.0, "completed", None, False, 1, 0, 1, (2,), 0, 0.0, first_logp=far) for _ in range(2)]
    assert SiblingAnswers().with_groups([one]).deviations == pytest.approx(1.0)
