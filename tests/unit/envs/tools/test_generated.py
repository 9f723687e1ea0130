"""Rows made by a program: the same everywhere, and of the leaderboard's kind."""

from __future__ import annotations

import pytest

from envs.tools.generated import CATEGORIES, generated_rows


@pytest.mark.parametrize("category", CATEGORIES)
def test_each_function_is_asked_for_as_often(category: str) -> None:
    rows = generated_rows(category)
    assert len(rows) == 96 * 8
    assert len({row.id for row in rows}) == len(rows)
    assert len({row.split_by for row in rows}) == 96
    for row in rows:
        offered = [function["name"] for function in row.functions]
        assert (row.split_by in offered) is (category != "irrelevance")
        assert len(offered) == (2 if category == "multiple" else 1)
        assert len(set(offered)) == len(offered)


def test_the_rows_are_those_of_every_machine() -> None:
    row = generated_rows("simple_python")[0]
    assert row.chat == (("user", "Please set the lamp: room office, user Leo."),)
    assert row.truths == ({"set_lamp": {"room": ["office"], "user": ["Leo"]}},)
