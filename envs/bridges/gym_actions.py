"""Actions of Gymnasium spaces as text: a grammar for each kind of space. gymnasium is imported inside the functions."""

from __future__ import annotations

import math
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.base import SettingError
from envs.bridges.gym_observations import check_texts

WIDEST = 1e6  # the bound of a number of an action whose space names none, or a wider one


class Grammar(ABC):
    """How an action of a space is written between `<action>` and `</action>`."""

    regex: str  # full match of the content
    hint: str  # what stands there, for the system prompt
    example: str = "A"

    @abstractmethod
    def read(self, content: str) -> tuple[Any, bool] | None:
        """(the action, whether it was within its bounds) of lower-cased, trimmed text; None for malformed text."""

    @abstractmethod
    def write(self, action: Any) -> str:
        """The text of an action of the space."""

    @abstractmethod
    def draw(self, rng: random.Random) -> Any:
        """A legal action, uniform where the space is bounded."""


def grammar(space: Any, actions: Sequence[str] | None) -> Grammar:
    """The grammar of an action space. `actions` names those of a Discrete space. Raises SettingError."""
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return Choice(int(space.start), int(space.n), actions)
    if actions is not None:
        raise SettingError(f"actions names those of a Discrete space; this one is {space}")
    if isinstance(space, spaces.MultiDiscrete):
        return Integers(space.start.ravel(), space.nvec.ravel(), space.shape, space.dtype)
    if isinstance(space, spaces.MultiBinary):
        size = math.prod(space.shape)
        return Integers(np.zeros(size, np.int64), np.full(size, 2), space.shape, space.dtype)
    if isinstance(space, spaces.Box):
        return Numbers(space.low, space.high)
    raise SettingError(f"actions of the kind {type(space).__name__} are not supported: wrap the environment")


class Choice(Grammar):
    """One of n: its number from `start` on, or its name."""

    def __init__(self, start: int, count: int, names: Sequence[str] | None) -> None:
        self._start = start
        self.words = [str(start + index) for index in range(count)] if names is None else _checked(names, count)
        self._index = {word.lower(): index for index, word in enumerate(self.words)}
        self.regex = f"({'|'.join(map(re.escape, self.words))})"
        self.hint = f"a number from {start} to {start + count - 1}" if names is None else _either(self.words)

    def read(self, content: str) -> tuple[int, bool] | None:
        known = content in self._index or not _INTEGER.fullmatch(content)
        index = self._index.get(content if known else str(int(content)))  # "+02" is 2
        return None if index is None else (self._start + index, True)

    def write(self, action: Any) -> str:
        index = int(action) - self._start
        if not 0 <= index < len(self.words):
            raise ValueError(f"{action!r} is none of the actions {', '.join(self.words)}")
        return self.words[index]

    def draw(self, rng: random.Random) -> int:
        return self._start + rng.randrange(len(self.words))


class Integers(Grammar):
    """A list of integers, each from its own start on; of a space with several axes, row by row."""

    def __init__(
        self, starts: NDArray[Any], counts: NDArray[Any], shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self._choices = [Choice(int(start), int(n), None) for start, n in zip(starts, counts, strict=True)]
        self._shape, self._dtype = shape, dtype
        self.regex = rf"\[{', ?'.join(choice.regex for choice in self._choices)}\]"
        first, last = ([choice.words[end] for choice in self._choices] for end in (0, -1))
        self.hint = f"{len(first)} whole numbers from {_listed(first)} to {_listed(last)}"
        self.example = "[A, ...]"

    def read(self, content: str) -> tuple[NDArray[Any], bool] | None:
        parts = _split(content, len(self._choices))
        if parts is None:
            return None
        read = [choice.read(part) for choice, part in zip(self._choices, parts, strict=True)]
        if any(action is None for action in read):
            return None
        return self._array([action[0] for action in read if action is not None]), True

    def write(self, action: Any) -> str:
        values = np.asarray(action).ravel()
        return _listed([choice.write(value) for choice, value in zip(self._choices, values, strict=True)])

    def draw(self, rng: random.Random) -> NDArray[Any]:
        return self._array([choice.draw(rng) for choice in self._choices])

    def _array(self, values: list[int]) -> NDArray[Any]:
        return np.array(values, self._dtype).reshape(self._shape)


class Numbers(Grammar):
    """A list of numbers; of a space with several axes, row by row. One outside its bounds is clipped into them. Bounds
    beyond one million count as one million: no answer makes the environment's own arithmetic overflow."""

    def __init__(self, low: NDArray[Any], high: NDArray[Any]) -> None:
        self._shape, self._dtype = low.shape, low.dtype
        self._whole = bool(np.issubdtype(self._dtype, np.integer))
        lows, highs = ([_plain(value) for value in np.clip(bound, -WIDEST, WIDEST).ravel()] for bound in (low, high))
        # As they are written: 0.7 is within a float32 bound of 0.7, although that number is a little less than 0.7.
        self._low, self._high = np.array(lows, float), np.array(highs, float)
        one = r"-?[0-9]{1,9}" if self._whole else r"-?[0-9]{1,9}(\.[0-9]{1,9})?"
        self.regex = rf"\[{', ?'.join([one] * low.size)}\]"
        kind = "whole number" if self._whole else "number"
        self.hint = f"{low.size} {kind}{'s' if low.size > 1 else ''} from {_listed(lows)} to {_listed(highs)}"
        self.example = "[A]" if low.size == 1 else "[A, ...]"

    def read(self, content: str) -> tuple[NDArray[Any], bool] | None:
        parts = _split(content, self._low.size)
        form = _INTEGER if self._whole else _NUMBER
        if parts is None or not all(form.fullmatch(part) for part in parts):
            return None
        wanted = np.array(parts, float)
        action = np.clip(wanted, self._low, self._high)
        return self._array(action), bool((action == wanted).all())

    def write(self, action: Any) -> str:
        return _listed([_plain(value) for value in np.asarray(action, self._dtype).ravel()])

    def draw(self, rng: random.Random) -> NDArray[Any]:
        """As Gymnasium's `sample`: normal without bounds, exponential with one. With 4 significant digits."""
        drawn = [float(f"{_drawn(rng, low, high):.4g}") for low, high in zip(self._low, self._high, strict=True)]
        return self._array(np.clip(np.round(drawn) if self._whole else drawn, self._low, self._high))

    def _array(self, values: NDArray[Any]) -> NDArray[Any]:
        return values.astype(self._dtype).reshape(self._shape)


_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,30}(\.[0-9]{0,30})?|\.[0-9]{1,30})(e[+-]?[0-9]{1,2})?")


def _drawn(rng: random.Random, low: float, high: float) -> float:
    if low > -WIDEST and high < WIDEST:
        return rng.uniform(low, high)
    if low > -WIDEST:
        return low + rng.expovariate(1.0)
    return high - rng.expovariate(1.0) if high < WIDEST else rng.gauss(0.0, 1.0)


def _split(content: str, count: int) -> list[str] | None:
    """The parts of "[0.1, -0.3]"; the brackets may be missing. None if there are not `count`."""
    inner = content[1:-1] if content.startswith("[") and content.endswith("]") else content
    parts = [part.strip() for part in inner.split(",")]
    return parts if len(parts) == count else None


def _plain(value: Any) -> str:
    """The shortest decimal that is this number in its own type, with at most 9 decimals and no exponent."""
    if isinstance(value, np.floating):
        return np.format_float_positional(value, precision=9, trim="-")
    return str(int(value))


def _listed(parts: Sequence[str]) -> str:
    return f"[{', '.join(parts)}]"


def _either(words: Sequence[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _checked(names: Sequence[str], count: int) -> list[str]:
    check_texts("actions", names)
    if len(names) != count:
        raise SettingError(f"actions must name all {count} actions, got {len(names)}: {', '.join(names)}")
    if len({name.lower() for name in names}) < count or any(name != name.strip() or "<" in name for name in names):
        raise SettingError(f"actions must be different texts without '<' and outer spaces, got {', '.join(names)}")
    return list(names)
