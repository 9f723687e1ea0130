"""A library that draws from the global generators repeats for each environment, and disturbs nobody."""

from __future__ import annotations

import random

import numpy as np
import pytest

from envs.randomness import OwnRandom


def drawn() -> tuple[float, float]:
    return random.random(), float(np.random.random())


def test_two_environments_that_take_turns_draw_what_each_draws_alone() -> None:
    alone = []
    for seed in (1, 2):
        own = OwnRandom(seed)
        with own.lent():
            alone.append([drawn() for _ in range(4)])

    first, second = OwnRandom(1), OwnRandom(2)
    turns: list[list[tuple[float, float]]] = [[], []]
    for _ in range(4):
        for own, seen in zip((first, second), turns, strict=True):
            with own.lent():
                seen.append(drawn())

    assert turns == alone


def test_the_programs_own_numbers_are_those_without_it_also_after_an_error() -> None:
    random.seed(5)
    np.random.seed(5)
    expected = drawn()
    random.seed(5)
    np.random.seed(5)

    def fail() -> None:
        with OwnRandom(-3).lent():
            drawn()
            raise KeyError

    with pytest.raises(KeyError):
        fail()

    assert drawn() == expected
