"""Observations of Gymnasium spaces as text and image. gymnasium is imported inside the functions."""

from __future__ import annotations

import math
import string
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.base import Observation, SettingError

MOST_DECIMALS = 6  # float32 holds no more of a number around 1
WHOLE_UP_TO = 1e15  # a larger number is written with an exponent
LONGEST_NUMBER = 28  # characters: sign, 16 digits, point, 6 decimals, and the comma
IMAGE_TEXT = "The image shows the state."


class ObservationWriter:
    """Writes the observations of a space as "position 0.031, velocity -1.2"; an HxWx3 uint8 part becomes the image.

    Each number has a label: that of `names`, in the order of the parts, else its place: "o0" the first number of a
    vector or tuple, "o1.0" the first of its second part, "arm.2" the third of what a Dict calls "arm". An observation
    that is one Text space is that text. Raises SettingError for a space that cannot be written, and for names that
    are not as many as the numbers.
    """

    def __init__(self, space: Any, names: Sequence[str] | None, digits: int) -> None:
        self._space, self._digits = space, digits
        parts = _parts(space)
        texts = [part for _, part in parts if _is_text(part)]
        places = [_label(place) for place, part in parts if not is_image(part)]
        self.has_image = len(places) < len(parts)
        self._labels = places if names is None else _checked(names, places)
        self._bare = names is None and _is_text(space)
        written = sum(len(label) + LONGEST_NUMBER for label in self._labels) + sum(part.max_length for part in texts)
        self.longest_text = max(len(IMAGE_TEXT), written)
        characters = "".join([string.printable, *self._labels, *(part.characters for part in texts)])
        self.alphabet = "".join(dict.fromkeys(characters))

    def __call__(self, value: Any) -> Observation:
        image, texts = None, []
        for part in _values(self._space, value):
            if isinstance(part, np.ndarray):
                image = part.copy()  # an environment may draw into its own later
            else:
                texts.append(self._written(part))
        if not texts:
            return Observation(IMAGE_TEXT, image)
        if self._bare:
            return Observation(texts[0], image)
        named = (f"{label} {text}" for label, text in zip(self._labels, texts, strict=True))
        return Observation(", ".join(named), image)

    def _written(self, value: Any) -> str:
        return number(value, self._digits) if isinstance(value, float) else str(value)


def number(value: float, digits: int) -> str:
    """Rounded to `digits` significant digits, but never before the point, and to 6 decimals.

    >>> number(0.0312, 2), number(-1.27, 2), number(123.4, 2), number(4e-9, 2)
    ('0.031', '-1.3', '123', '0')
    """
    if not math.isfinite(value) or abs(value) >= WHOLE_UP_TO:
        return f"{value:.{digits - 1}e}"
    if abs(value) < 0.5 * 10**-MOST_DECIMALS:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # after rounding: 0.0999 counts as 0.10
    return f"{value:.{min(MOST_DECIMALS, max(0, digits - 1 - exponent))}f}"


def is_image(space: Any) -> bool:
    from gymnasium import spaces

    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3 and space.shape[2] == 3


def _is_text(space: Any) -> bool:
    from gymnasium import spaces

    return isinstance(space, spaces.Text)


def _parts(space: Any) -> list[tuple[tuple[Any, ...], Any]]:
    """(place, space) of each number, text and image, in the order in which `_values` gives their values. Raises
    SettingError for a kind of space that has no text, and for a second image."""
    parts = list(_walk(space, ()))
    if sum(is_image(part) for _, part in parts) > 1:
        raise SettingError("the observation has several images, of which a policy can be shown one")
    return parts


def _walk(space: Any, place: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    from gymnasium import spaces

    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from _walk(part, (*place, key))
    elif isinstance(space, spaces.Tuple):
        for index, part in enumerate(space.spaces):
            yield from _walk(part, (*place, index))
    elif isinstance(space, spaces.Discrete | spaces.Text) or is_image(space):
        yield place, space
    elif isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary):
        for cell in np.ndindex(space.shape):
            yield (*place, *cell), space
    else:
        where = f" at {_label(place)}" if place else ""
        raise SettingError(
            f"an observation of the kind {type(space).__name__}{where} cannot be written: wrap the environment"
        )


def _values(space: Any, value: Any) -> Iterator[float | int | str | NDArray[np.uint8]]:
    from gymnasium import spaces

    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from _values(part, value[key])
    elif isinstance(space, spaces.Tuple):
        for part, inner in zip(space.spaces, value, strict=True):
            yield from _values(part, inner)
    elif isinstance(space, spaces.Discrete):
        yield int(value)
    elif isinstance(space, spaces.Text):
        yield str(value)
    elif is_image(space):
        yield np.asarray(value)
    else:
        yield from np.asarray(value, space.dtype).ravel().tolist()


def _label(place: tuple[Any, ...]) -> str:
    """
    >>> _label((0,)), _label((1, 0)), _label(("arm", 2)), _label(())
    ('o0', 'o1.0', 'arm.2', 'o0')
    """
    if not place:
        return "o0"
    return ("" if isinstance(place[0], str) else "o") + ".".join(map(str, place))


def _checked(names: Sequence[str], places: Sequence[str]) -> list[str]:
    check_texts("names", names)
    if len(names) != len(places):
        raise SettingError(f"names must hold {len(places)} texts, for {', '.join(places)}; got {len(names)}")
    return list(names)


def check_texts(setting: str, texts: Sequence[str]) -> None:
    """Raises SettingError unless all are texts: YAML reads `yes`, `no`, `on` and `off` without quotes as booleans."""
    wrong = [text for text in texts if not isinstance(text, str) or not text]
    if isinstance(texts, str) or wrong:
        raise SettingError(
            f"{setting} must be a list of texts, got {texts!r} (in YAML, put yes, no, on, off in quotes)"
        )
