"""The sample that ships with the package, and a function as a chat template takes it."""

from __future__ import annotations

import pytest

from envs.tools.rows import CATEGORIES, SAMPLE, as_tool, read_rows


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_sample_has_rows_of_every_category_with_truths_where_they_are_judged(category: str) -> None:
    rows = read_rows(SAMPLE, category)
    assert len(rows) >= 12
    assert len({row.id for row in rows}) == len(rows)
    assert all(bool(row.truths) is ("relevance" not in category) for row in rows)


def test_a_parameter_named_type_stays_a_parameter() -> None:
    inner = {"type": "dict", "properties": {"type": {"type": "float"}}}
    function = {
        "name": "f",
        "description": "d",
        "parameters": {"type": "dict", "properties": {"type": {"type": "array", "items": inner}}, "required": []},
        "response": "not shown",
    }
    tool = as_tool(function)
    assert tool["type"] == "function"
    assert sorted(tool["function"]) == ["description", "name", "parameters"]
    items = tool["function"]["parameters"]["properties"]["type"]["items"]
    assert items == {"type": "object", "properties": {"type": {"type": "number"}}}
    assert function["parameters"]["type"] == "dict", "the row itself is what it was"
