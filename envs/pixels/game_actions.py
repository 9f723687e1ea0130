"""The action of a MineRL BASALT player: a dictionary of keys and a camera, and two ways to write it as text."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Mapping, Sequence
from typing import SupportsIndex

import numpy as np

from envs.parsing import tag_content

# The keys of a MineRL BASALT action that are pressed (1) or not (0), in the order of its action space.
BUTTONS: tuple[str, ...] = (
    "attack", "back", "forward", "jump", "left", "right", "sneak", "sprint", "use", "drop", "inventory",
    *(f"hotbar.{slot}" for slot in range(1, 10)), "ESC",
)  # fmt: skip
CAMERA = "camera"
CAMERA_LIMIT = 180.0  # degrees by which one action turns the view at most, up or down and left or right

GameAction = dict[str, int | list[float]]  # every name of BUTTONS to 0 or 1, and "camera" to [pitch, yaw] in degrees

WORD_DEGREES = 15.0
# Words that turn the view: change of [pitch, yaw] in degrees; pitch is positive downwards, yaw to the right.
TURNS: Mapping[str, tuple[float, float]] = {
    "turn_left": (0.0, -WORD_DEGREES),
    "turn_right": (0.0, WORD_DEGREES),
    "look_up": (-WORD_DEGREES, 0.0),
    "look_down": (WORD_DEGREES, 0.0),
}
KEYS_OF_WORDS: Mapping[str, str] = {
    **{key: key for key in ("forward", "back", "left", "right", "jump", "sneak", "sprint", "attack", "use")},
    "esc": "ESC",
}
WORDS: tuple[str, ...] = (*KEYS_OF_WORDS, *TURNS, "none")
MOST_WORDS = 6

_WORD = f"({'|'.join(WORDS)})"
_ANGLE = r"-?[0-9]{1,3}(\.[0-9]{1,4})?"
_ENTRY = rf'("({"|".join(BUTTONS).replace(".", "[.]")})": [01]|"{CAMERA}": \[{_ANGLE}, {_ANGLE}\])'
_KEYS = rf"\{{({_ENTRY}(, {_ENTRY}){{0,{len(BUTTONS)}}})?\}}"

WORDS_REGEX = rf"<action>{_WORD}( {_WORD}){{0,{MOST_WORDS - 1}}}</action>"
JSON_REGEX = rf'({_KEYS}|\{{"reasoning": "[A-Za-z0-9 ,.;:()\'-]{{0,120}}", "action": {_KEYS}\}})'


class BadAction(ValueError):
    """What was given is no action; the message says what was expected."""


def no_op() -> GameAction:
    """The action that presses nothing and does not turn; a new object for each call.

    >>> no_op()["camera"], no_op()["jump"], len(no_op())
    ([0.0, 0.0], 0, 22)
    """
    action: GameAction = dict.fromkeys(BUTTONS, 0)
    action[CAMERA] = [0.0, 0.0]
    return action


def full_action(given: Mapping[str, object]) -> GameAction:
    """`given` with every key: a missing one is not pressed, camera angles are clamped to +-180 degrees. Integers and
    arrays may be numpy's, as action spaces draw them. Raises BadAction for an unknown key or a value of another kind.

    >>> full_action({"forward": 1, "camera": [0, 500]})["camera"]
    [0.0, 180.0]
    """
    action = no_op()
    for name, value in given.items():
        if name == CAMERA:
            action[CAMERA] = _angles(value)
        elif name in BUTTONS:
            action[name] = _pressed(name, value)
        else:
            raise BadAction(f"no key {_shown(name)}; the keys are {', '.join(BUTTONS)} and {CAMERA}")
    return action


def from_json(text: str) -> GameAction:
    """The action in `{"forward": 1, ...}` or `{"reasoning": "...", "action": {"forward": 1, ...}}`; text around the
    object is ignored. Raises BadAction."""
    try:
        found = json.loads(text[text.index("{") : text.rindex("}") + 1])
    except (ValueError, RecursionError) as error:
        raise BadAction("the answer holds no JSON object") from error
    if not isinstance(found, dict):
        raise BadAction("the answer holds no JSON object")
    if "action" not in found:
        return full_action(found)
    if not isinstance(found["action"], dict) or not isinstance(found.get("reasoning", ""), str):
        raise BadAction('expected {"reasoning": text, "action": {...}}')
    if unknown := found.keys() - {"action", "reasoning"}:
        raise BadAction(f"no key {_shown(min(unknown))} beside reasoning and action")
    return full_action(found["action"])


def from_words(text: str) -> GameAction:
    """The action in `<action>forward turn_left</action>`: up to MOST_WORDS of WORDS; turns add up. Raises BadAction.

    >>> from_words("<action>forward turn_left turn_left</action>")["camera"]
    [0.0, -30.0]
    """
    words = (tag_content(text, "action") or "").split()
    if not 1 <= len(words) <= MOST_WORDS:
        raise BadAction(f"expected 1 to {MOST_WORDS} words in <action>...</action>, got {len(words)}")
    action, pitch, yaw = no_op(), 0.0, 0.0
    for word in words:
        if word not in WORDS:
            raise BadAction(f"no word {_shown(word)}; the words are {', '.join(WORDS)}")
        if word in KEYS_OF_WORDS:
            action[KEYS_OF_WORDS[word]] = 1
        down, right = TURNS.get(word, (0.0, 0.0))
        pitch, yaw = pitch + down, yaw + right
    action[CAMERA] = [pitch, yaw]
    return action


def as_json(pressed: Sequence[str], pitch: float = 0.0, yaw: float = 0.0) -> str:
    """The shortest JSON that `from_json` reads as these keys and this turn of the camera.

    >>> as_json(["forward"], yaw=12.5)
    '{"forward": 1, "camera": [0.0, 12.5]}'
    """
    action: dict[str, object] = dict.fromkeys(pressed, 1)
    if pitch or yaw:
        action[CAMERA] = [round(pitch, 2), round(yaw, 2)]
    return json.dumps(action)


def as_words(words: Sequence[str]) -> str:
    """
    >>> as_words([])
    '<action>none</action>'
    """
    return f"<action>{' '.join(words) or 'none'}</action>"


def _pressed(name: str, value: object) -> int:
    if isinstance(value, SupportsIndex) and not isinstance(value, bool | np.bool_):
        try:
            number = operator.index(value)
        except TypeError:  # an array of several numbers, or of other than integers
            number = -1
        if number in (0, 1):
            return number
    raise BadAction(f"{name} must be 0 or 1, got {_shown(value)}")


def _angles(value: object) -> list[float]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise BadAction(f"{CAMERA} must be [pitch, yaw] in degrees, got {_shown(value)}")
    return [_angle(entry) for entry in value]


def _angle(value: object) -> float:
    try:
        number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        angle = float(value) if number else math.nan  # type: ignore[arg-type]
    except OverflowError:  # an integer beyond any float
        angle = math.nan
    if not math.isfinite(angle):
        raise BadAction(f"{CAMERA} must be two finite angles in degrees, got {_shown(value)}")
    return min(max(angle, -CAMERA_LIMIT), CAMERA_LIMIT)


def _shown(value: object) -> str:
    return repr(value)[:60]
