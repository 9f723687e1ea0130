"""Reward functions of verifiers that raise. The library logs them and scores 0; here such a score is a fault.

verifiers scores one rollout of a process at a time (`OwnRandom.lent`), so one list of what was raised is enough.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

Function = Callable[..., Any]


class Raised:
    """What reward functions raised since `clear`."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def clear(self) -> None:
        self.errors = []

    def watch(self, rubric: Any) -> None:
        """Wraps the functions of a rubric, and those of the rubrics that it consists of. Signatures and names stay: the
        library chooses the arguments by them."""
        for part in getattr(rubric, "rubrics", ()):
            self.watch(part)
        if hasattr(rubric, "funcs"):
            rubric.funcs = [self._watched(function) for function in rubric.funcs]

    def _watched(self, function: Function) -> Function:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def asynchronous(*arguments: Any, **named: Any) -> Any:
                try:
                    return await function(*arguments, **named)
                except Exception as error:
                    self._note(function, error)
                    raise

            return asynchronous

        @functools.wraps(function)
        def synchronous(*arguments: Any, **named: Any) -> Any:
            try:
                return function(*arguments, **named)
            except Exception as error:
                self._note(function, error)
                raise

        return synchronous

    def _note(self, function: Function, error: Exception) -> None:
        self.errors.append(f"{getattr(function, '__name__', 'a reward function')}: {type(error).__name__}: {error}")
