from __future__ import annotations

from benchmarks.robots_per_replica import Load, figures_of


def load(robots: int, late: int, of: int = 1000) -> Load:
    return Load(robots, [10.0] * (of - late) + [250.0] * late)


def test_robots_are_held_while_at_most_one_answer_in_a_hundred_is_late() -> None:
    assert load(4, late=10).held
    assert not load(4, late=11).held


def test_the_largest_number_that_is_held_counts_although_a_smaller_one_failed_once() -> None:
    tried = [load(2, late=0), load(4, late=500), load(6, late=3), load(8, late=700), load(10, late=900)]

    figures = {figure.name: figure.value for figure in figures_of("with batches", tried)}

    assert figures["with batches: robots held"] == 6
    assert figures["with batches: 6 robots, late"] == 3
    assert figures["with batches: 8 robots, late"] == 700  # the first that is not held above it
    assert not any("4 robots" in name for name in figures)


def test_where_no_number_is_held_the_smallest_one_is_shown() -> None:
    figures = {figure.name: figure.value for figure in figures_of("single", [load(2, late=100), load(4, late=900)])}

    assert figures["single: robots held"] == 0
    assert figures["single: 2 robots, late"] == 100
