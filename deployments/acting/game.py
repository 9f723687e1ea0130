"""A MineRL player behind a vision-language model: what it is asked, and how its answer becomes an action."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from configs.acting import GameConfig
from deployments.acting.answers import UnreadableAnswer, object_in
from deployments.errors import PolicyError
from deployments.protocol.act import ChatTurn
from deployments.protocol.game import BUTTONS, CAMERA, GameAction, PlayStep, no_op

# The four tasks of MineRL BASALT and what a player has to do, in our own words.
TASKS: Mapping[str, str] = {
    "MineRLBasaltFindCave-v0": "Find a natural cave, walk into it, and end the episode there.",
    "MineRLBasaltMakeWaterfall-v0": (
        "Climb a mountain, make a waterfall with the water bucket, step back until it is in view, and end the episode."
    ),
    "MineRLBasaltCreateVillageAnimalPen-v0": (
        "Next to a house of the village, fence in a pen with a gate, lead at least two animals of one kind into it, "
        "close it, and end the episode. Do not harm the village."
    ),
    "MineRLBasaltBuildVillageHouse-v0": (
        "Build a house in the style of the village out of the blocks that you carry, show it from inside and outside, "
        "and end the episode. Do not harm the village."
    ),
}

_CAMERA_LIMIT = 180.0  # degrees
_LONGEST_REASONING = 120  # characters; bounds what guided decoding may write. xgrammar cannot repeat beyond 128
_PRESSED: Mapping[object, int] = {0: 0, 1: 1, "0": 0, "1": 1, "false": 0, "true": 1}


def task_text(task: str, config: GameConfig) -> str:
    """What the player is told to do. Raises PolicyError("invalid_request") that lists the known tasks."""
    known = {**TASKS, **config.tasks}
    if task not in known:
        raise PolicyError("invalid_request", f"unknown task {task[:80]!r}; known: {', '.join(sorted(known))}")
    return known[task]


def game_turns(task: str, steps: Sequence[PlayStep], config: GameConfig) -> list[ChatTurn]:
    """The conversation that asks for one action on the last of `steps`, with the earlier ones before it.

    Raises PolicyError("invalid_request") for an unknown task or without a step.
    """
    if not steps:
        raise PolicyError("invalid_request", "Either 'image' or 'history' must be provided")
    past = [turn for step in steps[:-1] for turn in _past_turns(step, config)]
    now = ChatTurn("user", "The game now. Which action comes next?", (steps[-1].frame,))
    return [ChatTurn("system", _rules(task_text(task, config), config)), *past, now]


def read_play(text: str, config: GameConfig) -> tuple[GameAction, str]:
    """(action with every key, reasoning) of a model's answer `{"reasoning", "action"}`. Keys that are not named are not
    pressed; camera angles are clamped to +-180 degrees. Raises UnreadableAnswer."""
    answer = object_in(text, ["action"])
    pressed = answer["action"]
    if not isinstance(pressed, Mapping):
        raise UnreadableAnswer(f"action must be an object of keys, got {_shown(pressed)}")
    action = _action(pressed)
    action[CAMERA] = _in_order(action[CAMERA], config)
    return action, str(answer.get("reasoning") or "")


def play_schema() -> dict[str, object]:
    """JSON schema of an answer that `read_play` always understands; everything in it has a bounded length."""
    angle = {"type": "integer", "minimum": -int(_CAMERA_LIMIT), "maximum": int(_CAMERA_LIMIT)}
    keys: dict[str, object] = {name: {"enum": [0, 1]} for name in BUTTONS}
    keys[CAMERA] = {"type": "array", "prefixItems": [angle, angle], "items": False, "minItems": 2, "maxItems": 2}
    return {
        "type": "object",
        "properties": {
            "reasoning": {"type": "string", "pattern": f"^[A-Za-z0-9 ,.;:'()-]{{0,{_LONGEST_REASONING}}}$"},
            "action": {
                "type": "object",
                "properties": keys,
                "required": list(keys),
                "additionalProperties": False,
            },
        },
        "required": ["reasoning", "action"],
        "additionalProperties": False,
    }


def _action(pressed: Mapping[object, object]) -> GameAction:
    action = no_op()
    for name in BUTTONS:
        if name in pressed:
            action[name] = _button(name, pressed[name])
    if CAMERA in pressed:
        action[CAMERA] = _angles(pressed[CAMERA])
    return action


def _button(name: str, value: object) -> int:
    if isinstance(value, str):
        value = value.strip().lower()
    if not isinstance(value, int | float | str) or value not in _PRESSED:
        raise UnreadableAnswer(f"{name} must be 0 or 1, got {_shown(value)}")
    return _PRESSED[value]


def _angles(value: object) -> list[float]:
    """Two numbers of degrees within +-180, in the order in which they were given."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise UnreadableAnswer(f"{CAMERA} must be two angles in degrees, got {_shown(value)}")
    return [_angle(entry) for entry in value]


def _angle(value: object) -> float:
    try:
        angle = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        angle = math.nan
    if math.isnan(angle):
        raise UnreadableAnswer(f"{CAMERA} must be two angles in degrees, got {_shown(value)}")
    return min(max(angle, -_CAMERA_LIMIT), _CAMERA_LIMIT)


def _in_order(angles: object, config: GameConfig) -> list[float]:
    """Between [pitch, yaw] and the order that the model is asked for; it is its own inverse."""
    assert isinstance(angles, list)
    return angles if config.camera_convention == "pitch_yaw" else angles[::-1]


def _past_turns(step: PlayStep, config: GameConfig) -> list[ChatTurn]:
    seen = ChatTurn("user", "The game a moment ago.", (step.frame,))
    if step.action is None:
        return [seen]
    done: GameAction = {name: value for name, value in step.action.items() if value}
    done[CAMERA] = _in_order(step.action[CAMERA], config)
    return [seen, ChatTurn("assistant", json.dumps({"action": done}))]


def _rules(task: str, config: GameConfig) -> str:
    pitch, yaw = "pitch (positive looks down)", "yaw (positive turns right)"
    first, second = (pitch, yaw) if config.camera_convention == "pitch_yaw" else (yaw, pitch)
    return (
        f"You play Minecraft and see the game as its player does. Your task: {task}\n"
        'Answer with one JSON object {"reasoning": a short sentence, "action": {...}}. These keys of the action are 1 '
        f"when pressed and 0 when not: {', '.join(BUTTONS)}. The key {CAMERA} is a list of two angles in degrees by "
        f"which the view turns: {first}, then {second}. ESC ends the episode."
    )


def _shown(value: object) -> str:
    return repr(value)[:60]
