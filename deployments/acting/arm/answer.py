"""What a vision-language model says about a robot arm's next step, read as a direction and a size for each axis."""

from __future__ import annotations

import math
from collections.abc import Mapping

from deployments.acting.answers import UnreadableAnswer, object_in
from deployments.acting.arm.axes import AXES, GRIPPER, Axis

# Axis -> signed size in -1..1, positive in the positive direction of the axis (the gripper: 1 open, -1 closed); None:
# the axis is left alone.
Move = Mapping[Axis, float | None]

_NOTHING = ("", "null", "none", "no change", "nothing")
_LONGEST_REASON = 32  # characters; bounds what guided decoding may write, so that the answer ends within max_tokens
_SIZES = [round(0.05 * step, 2) for step in range(21)]


def read_move(text: str) -> Move:
    """The movement in `text`: prose and a JSON object whose keys are axes and whose values are [direction or null,
    size in 0..1, reason]. Sizes beyond 0..1 are clamped; an axis that is not named is left alone.

    Raises UnreadableAnswer, which names the axis and what was expected.

    >>> read_move('{"z": ["down", 0.5, "the cup is below"]}')["z"]
    -0.5
    """
    answer = object_in(text, list(AXES))
    return {axis: _signed(axis, answer.get(axis)) for axis in AXES}


def move_schema() -> dict[str, object]:
    """JSON schema of an answer that `read_move` always understands.

    Everything in it has a bounded length: a sampler that follows it ends, whatever it samples. Sizes come in steps of
    0.05, because a grammar cannot bound the digits of a free number. The gripper's direction may not be null, since
    that would close it.
    """
    return {
        "type": "object",
        "properties": {axis: _entry_schema(axis) for axis in AXES},
        "required": list(AXES),
        "additionalProperties": False,
    }


def _entry_schema(axis: Axis) -> dict[str, object]:
    directions: list[str | None] = [AXES[axis].positive, AXES[axis].negative]
    if axis != GRIPPER:
        directions.append(None)
    return {
        "type": "array",
        "prefixItems": [
            {"enum": directions},
            {"enum": _SIZES},
            {"type": "string", "pattern": f"^[A-Za-z0-9 ,.;:'()-]{{0,{_LONGEST_REASON}}}$"},
        ],
        "items": False,
        "minItems": 3,
        "maxItems": 3,
    }


def _signed(axis: Axis, entry: object) -> float | None:
    direction, size = _direction_and_size(axis, entry)
    sign = _sign(axis, direction)
    if sign is None:
        return None
    if axis == GRIPPER:  # open or closed; there is nothing between
        return sign
    return sign * min(max(_number(axis, size), 0.0), 1.0)


def _direction_and_size(axis: Axis, entry: object) -> tuple[object, object]:
    match entry:
        case None | [] | [None, *_]:
            return None, None
        case [direction, size, *_]:
            return direction, size
        case {"direction": direction, "magnitude": size}:
            return direction, size
    raise UnreadableAnswer(f"{axis} must be [direction or null, size, reason], got {_shown(entry)}")


def _sign(axis: Axis, direction: object) -> float | None:
    words = " ".join(str(direction).lower().replace("_", " ").replace("-", " ").split())
    words = words.replace("counter clockwise", "counterclockwise")
    if direction is None or words in _NOTHING:
        return None
    names = AXES[axis]
    for sign, name in ((1.0, names.positive), (-1.0, names.negative)):
        if words in (name, *_short_forms(axis, name)):
            return sign
    raise UnreadableAnswer(
        f"unknown direction {_shown(direction)} for {axis}: expected {names.positive!r}, {names.negative!r} or null"
    )


def _short_forms(axis: Axis, name: str) -> tuple[str, ...]:
    """`tilt up` may be said as `up`, `rotate clockwise` as `clockwise`, `open gripper` as `open`."""
    if " " not in name:
        return ()
    return (name.removesuffix(" gripper"),) if axis == GRIPPER else (name.split(" ", 1)[1],)


def _number(axis: Axis, size: object) -> float:
    try:
        number = float(size) if isinstance(size, int | float | str) and not isinstance(size, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if math.isnan(number):
        raise UnreadableAnswer(f"the size of {axis} must be a number from 0 to 1, got {_shown(size)}")
    return number


def _shown(value: object) -> str:
    return repr(value)[:60]
