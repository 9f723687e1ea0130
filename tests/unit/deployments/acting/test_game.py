"""What a MineRL player is asked, and what its answer does."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.acting import GameConfig
from deployments.acting.answers import UnreadableAnswer
from deployments.acting.game import TASKS, game_turns, play_schema, read_play, task_text
from deployments.errors import PolicyError
from deployments.protocol.game import BUTTONS, CAMERA, PlayStep, no_op

PITCH_YAW = GameConfig()
YAW_PITCH = GameConfig(camera_convention="yaw_pitch")
CAVE = "MineRLBasaltFindCave-v0"
FRAME = np.zeros((2, 2, 3), np.uint8)


def answer(**action: object) -> str:
    return json.dumps({"reasoning": "It's dark over there", "action": action})


def test_the_four_tasks_of_basalt_are_known() -> None:
    names = ("FindCave", "MakeWaterfall", "CreateVillageAnimalPen", "BuildVillageHouse")
    assert set(TASKS) == {f"MineRLBasalt{name}-v0" for name in names}


def test_an_action_has_every_key_and_an_apostrophe_breaks_nothing() -> None:
    action, reasoning = read_play(answer(forward=1, **{"hotbar.3": True, CAMERA: [-5, 12.5]}), PITCH_YAW)

    assert reasoning == "It's dark over there"
    assert action == no_op() | {"forward": 1, "hotbar.3": 1, CAMERA: [-5.0, 12.5]}
    assert set(action) == {*BUTTONS, CAMERA}


def test_the_camera_is_clamped_and_answered_as_pitch_and_yaw() -> None:
    text = answer(**{CAMERA: [400, -1e9]})

    assert read_play(text, PITCH_YAW)[0][CAMERA] == [180.0, -180.0]
    assert read_play(text, YAW_PITCH)[0][CAMERA] == [-180.0, 180.0]


@pytest.mark.parametrize("value", [1, 1.0, True, "1", "true", " True "])
def test_pressed_has_many_spellings(value: object) -> None:
    assert read_play(answer(jump=value), PITCH_YAW)[0]["jump"] == 1


def test_keys_that_no_action_has_are_ignored() -> None:
    assert read_play(answer(fly=1), PITCH_YAW)[0] == no_op()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I walk on.", "no JSON object"),
        ('{"reasoning": "x"}', "no JSON object"),
        ('{"action": "forward"}', "action must be an object"),
        (answer(jump=2), "jump must be 0 or 1, got 2"),
        (answer(jump="often"), "jump must be 0 or 1"),
        (answer(jump=[1]), "jump must be 0 or 1"),
        (answer(jump=None), "jump must be 0 or 1"),
        (answer(**{CAMERA: [1]}), "camera must be two angles"),
        (answer(**{CAMERA: "ab"}), "camera must be two angles"),
        (answer(**{CAMERA: [1, None]}), "camera must be two angles"),
        (answer(**{CAMERA: [1, True]}), "camera must be two angles"),
        ('{"action": {"camera": [NaN, 1]}}', "camera must be two angles"),
        ('{"action": {"jump": NaN}}', "jump must be 0 or 1"),
    ],
)
def test_what_is_no_action_is_named(text: str, words: str) -> None:
    with pytest.raises(UnreadableAnswer, match=words):
        read_play(text, PITCH_YAW)


def test_the_player_sees_the_frames_in_order_with_what_it_did() -> None:
    steps = [
        PlayStep(FRAME, no_op() | {"jump": 1, CAMERA: [3.0, 4.0]}),
        PlayStep(FRAME, None),
        PlayStep(FRAME),
    ]
    turns = game_turns(CAVE, steps, YAW_PITCH)

    assert [(turn.role, len(turn.images)) for turn in turns] == [
        ("system", 0), ("user", 1), ("assistant", 0), ("user", 1), ("user", 1),
    ]  # fmt: skip
    assert json.loads(turns[2].text) == {"action": {"jump": 1, CAMERA: [4.0, 3.0]}}


def test_the_rules_say_the_task_the_keys_and_the_order_of_the_angles() -> None:
    rules = game_turns(CAVE, [PlayStep(FRAME)], PITCH_YAW)[0].text
    other = game_turns(CAVE, [PlayStep(FRAME)], YAW_PITCH)[0].text

    assert TASKS[CAVE] in rules
    assert all(re.search(rf"\b{re.escape(name)}\b", rules) for name in BUTTONS)
    assert rules.index("pitch") < rules.index("yaw")
    assert other.index("yaw") < other.index("pitch")


def test_an_unknown_task_is_refused_with_those_that_are_known() -> None:
    config = GameConfig(tasks={"Dig-v0": "Dig a hole."})

    assert task_text("Dig-v0", config) == "Dig a hole."
    with pytest.raises(PolicyError, match="unknown task 'Fly-v0'; known: Dig-v0, MineRLBasaltBuild") as refusal:
        task_text("Fly-v0", config)
    assert refusal.value.kind == "invalid_request"


def test_without_a_frame_there_is_nothing_to_decide() -> None:
    with pytest.raises(PolicyError, match="Either 'image' or 'history' must be provided"):
        game_turns(CAVE, [], PITCH_YAW)


def test_no_op_is_a_new_object_each_time() -> None:
    no_op()[CAMERA] = [9.0, 9.0]
    assert no_op()[CAMERA] == [0.0, 0.0]


@given(
    pressed=st.lists(st.sampled_from([0, 1]), min_size=len(BUTTONS), max_size=len(BUTTONS)),
    camera=st.tuples(st.integers(-180, 180), st.integers(-180, 180)),
)
def test_an_answer_of_the_schema_is_read_as_it_is(pressed: list[int], camera: tuple[int, int]) -> None:
    action = {**dict(zip(BUTTONS, pressed, strict=True)), CAMERA: list(camera)}
    schema = play_schema()["properties"]["action"]  # type: ignore[index]

    assert read_play(answer(**action), PITCH_YAW)[0] == action
    assert schema["required"] == list(schema["properties"]) == list(action)
