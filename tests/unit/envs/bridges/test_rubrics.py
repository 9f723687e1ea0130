"""Reward functions that raise are found, whatever the library makes of it."""

from __future__ import annotations

import asyncio
import inspect
from types import SimpleNamespace
from typing import Any

import pytest

from envs.bridges.rubrics import Raised


def exact(answer: str, state: Any) -> float:
    raise ValueError("no answer")


async def judged(completion: Any, **kwargs: Any) -> float:
    raise ConnectionError("the judge is down")


def test_functions_of_every_rubric_are_watched_and_keep_their_name_and_arguments() -> None:
    raised, inner = Raised(), SimpleNamespace(funcs=[judged])
    outer = SimpleNamespace(funcs=[exact], rubrics=[inner])
    raised.watch(outer)
    assert (outer.funcs[0].__name__, inspect.signature(outer.funcs[0])) == ("exact", inspect.signature(exact))
    assert inspect.iscoroutinefunction(inner.funcs[0])

    with pytest.raises(ValueError, match="no answer"):
        outer.funcs[0]("a", {})
    with pytest.raises(ConnectionError):
        asyncio.run(inner.funcs[0]([]))

    assert raised.errors == ["exact: ValueError: no answer", "judged: ConnectionError: the judge is down"]
    raised.clear()
    assert raised.errors == []
