"""Function calling as an environment: what the policy sees, what its answer is worth, what the expert says."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from envs.base import EpisodeOver, SettingError
from envs.tools.bfcl import FunctionCalling
from envs.tools.rows import CATEGORIES

ROW = {
    "id": "simple_python_0",
    "question": [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Area of 2 by 3?"}]],
    "function": [
        {
            "name": "area",
            "description": "Area of a rectangle.",
            "parameters": {
                "type": "dict",
                "properties": {"width": {"type": "float"}, "type": {"type": "tuple", "items": {"type": "any"}}},
                "required": ["width"],
            },
        }
    ],
}
TRUTH = {"id": "simple_python_0", "ground_truth": [{"area": {"width": [2.0], "type": ["", ["a"]]}}]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "possible_answer").mkdir()
    for category in ("simple_python", "irrelevance"):
        (tmp_path / f"BFCL_v4_{category}.json").write_text(json.dumps(ROW) + "\n")
    (tmp_path / "possible_answer" / "BFCL_v4_simple_python.json").write_text(json.dumps(TRUTH) + "\n")
    return tmp_path


def env(folder: Path, **settings: object) -> FunctionCalling:
    made = FunctionCalling(**{"categories": ["simple_python"], "data": str(folder), **settings})  # type: ignore[arg-type]
    made.reset(0)
    return made


RIGHT = '<tool_call>{"name": "area", "arguments": {"width": 2}}</tool_call>'
WRONG = '<tool_call>{"name": "area", "arguments": {"width": 3}}</tool_call>'


def test_a_right_call_is_worth_one_and_success(folder: Path) -> None:
    result = env(folder).step(RIGHT)
    assert (result.reward, result.success, result.terminated, result.truncated) == (1.0, True, True, False)
    assert result.info["rewards"] == {"correct": 1.0, "format": 0.0}
    assert result.info["category"] == "simple_python"


@pytest.mark.parametrize(("answer", "readable"), [(WRONG, True), ("I do not know.", True), ("<tool_call>{", False)])
def test_anything_else_is_worth_nothing(folder: Path, answer: str, readable: bool) -> None:
    result = env(folder).step(answer)
    assert (result.reward, result.success, result.info["parse_ok"]) == (0.0, False, readable)


def test_a_call_in_the_right_form_may_be_worth_less_than_a_right_one_and_is_no_success(folder: Path) -> None:
    assert env(folder, format_reward=0.1).step(WRONG).reward == 0.1
    assert not env(folder, format_reward=0.1).step(WRONG).success
    assert env(folder, format_reward=0.1).step("no").reward == 0.0
    assert env(folder, format_reward=0.1).step(RIGHT).reward == 1.0
    with pytest.raises(SettingError, match="format_reward must be at least 0 and below 1"):
        env(folder, format_reward=1.0)


def test_where_nothing_fits_no_call_is_right_and_a_broken_one_is_none(folder: Path) -> None:
    for answer, right in (("None fits.", True), (RIGHT, False), ("<tool_call>{", True)):
        result = env(folder, categories="irrelevance", format_reward=0.1).step(answer)
        assert (result.success, result.reward) == (right, float(right))


HOSTILE = (
    '<tool_call>{"name": "area", "arguments": {"width": 1%s}}</tool_call>' % ("0" * 400),
    '<tool_call>{"name": "area", "arguments": {"width": 1%s}}</tool_call>' % ("0" * 5000),
    '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>',
    '<tool_call>{"name": "area", "arguments": {"\\ud800": 1, "width": 2}}</tool_call>',
    '<tool_call>{"name": "area", "arguments": {"width": "\\ud800"}}</tool_call>',
    '<tool_call>{"name": "area", "arguments": {"width": "%s"}}</tool_call>' % ("\\u0000" * 3000),
    '<tool_call>{"name": "area", "arguments": {"width": %s}}</tool_call>' % ("[" * 500 + "]" * 500),
    "<function_calls>[area(width=0x%s)]</function_calls>" % ("f" * 5000),
    "<function_calls>[0x%s]</function_calls>" % ("f" * 5000),
    "<function_calls>[area(width=x[0x%s])]</function_calls>" % ("f" * 5000),
    "<function_calls>[area(width='\\ud800')]</function_calls>",
)


@pytest.mark.parametrize("answer", HOSTILE, ids=range(len(HOSTILE)))
def test_whatever_a_policy_answers_is_data_that_can_be_shown(folder: Path, answer: str) -> None:
    made = env(folder)
    result = made.step(answer)
    assert (result.reward, result.success, result.terminated) == (0.0, False, True)
    result.observation.text.encode()
    assert len(result.observation.text) <= made.spec.longest_text
    assert set(result.observation.text) <= set(made.spec.alphabet)


def test_an_episode_is_one_turn(folder: Path) -> None:
    made = env(folder)
    made.step(RIGHT)
    with pytest.raises(EpisodeOver):
        made.step(RIGHT)


def test_native_functions_are_tools_with_the_types_of_json_schema(folder: Path) -> None:
    observation = env(folder).reset(0)
    assert observation.text == "Area of 2 by 3?"
    assert observation.earlier == (("system", "Be brief."),)
    [tool] = observation.tools
    assert tool["function"]["parameters"] == {
        "type": "object",
        "properties": {"width": {"type": "number"}, "type": {"type": "array", "items": {"type": "string"}}},
        "required": ["width"],
    }


def test_tagged_functions_are_text_and_are_called_in_python(folder: Path) -> None:
    made = env(folder, form="tagged")
    observation = made.reset(0)
    assert '"name": "area"' in observation.text
    assert observation.tools == ()
    assert "<function_calls>" in made.spec.system_prompt
    assert made.step("<function_calls>[area(width=2.0)]</function_calls>").success


@pytest.mark.parametrize("form", ["native", "tagged"])
@pytest.mark.parametrize("category", CATEGORIES)
def test_the_expert_is_right_in_every_category_and_wrong_with_noise(category: str, form: str) -> None:
    made, rng = FunctionCalling([category], form=form), random.Random(0)  # type: ignore[arg-type]
    assert all(_plays(made, rng, seed, 0.0) for seed in range(40))
    made_up = sum(_plays(made, rng, seed, 1.0) for seed in range(40))
    assert made_up <= 4 or category == "live_relevance", "a call with made-up values"


def _plays(made: FunctionCalling, rng: random.Random, seed: int, noise: float) -> bool:
    made.reset(seed)
    return made.step(made.expert_action(rng, noise)).success


def test_no_held_out_row_is_ever_trained_on() -> None:
    rows = {split: {row.id for row in FunctionCalling(split=split)._rows} for split in ("all", "train", "heldout")}  # type: ignore[arg-type]
    assert rows["train"] | rows["heldout"] == rows["all"]
    assert not rows["train"] & rows["heldout"]
    assert len(rows["all"]) == 170
    assert len(rows["heldout"]) >= 10


def test_generated_rows_ask_for_functions_that_were_never_trained_on() -> None:
    made = {split: FunctionCalling(data="generated", split=split) for split in ("train", "heldout")}  # type: ignore[arg-type]
    asked = {split: {row.split_by for row in env._rows} for split, env in made.items()}
    assert not asked["train"] & asked["heldout"]
    shown = {split: {f["name"] for row in env._rows for f in row.functions} for split, env in made.items()}
    assert shown == asked, "a function that is held out is not shown either"
    assert (len(asked["train"]) + len(asked["heldout"]), len(asked["heldout"]) > 5) == (96, True)
    assert {row.category for row in made["train"]._rows} == {"simple_python", "multiple", "irrelevance"}
    rng = random.Random(0)
    assert all(_plays(made["train"], rng, seed, 0.0) for seed in range(60))
    assert not all(_plays(made["train"], rng, seed, 1.0) for seed in range(60))


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("BFCL_v4_simple_python.json", "{", "line 1: each line must be a JSON object"),
        ("BFCL_v4_simple_python.json", '{"id": 1}', "line 1: a row needs id, question, function"),
        ("BFCL_v4_simple_python.json", json.dumps(ROW | {"id": "x"}), "row 'x' is not in the leaderboard's layout"),
        ("BFCL_v4_simple_python.json", json.dumps(ROW).replace("tuple", "set"), "a parameter has the type 'set'"),
        ("possible_answer/BFCL_v4_simple_python.json", json.dumps(TRUTH).replace("area", "volume"), "volume"),
    ],
)
def test_a_broken_file_is_named_with_its_line(folder: Path, file: str, text: str, told: str) -> None:
    (folder / file).write_text(text)
    with pytest.raises(SettingError, match=told):
        env(folder)


def test_a_folder_without_the_data_and_an_unknown_category_say_so(folder: Path) -> None:
    with pytest.raises(SettingError, match="cannot be read"):
        env(folder / "nowhere")
    with pytest.raises(SettingError, match="categories must be one of simple_python"):
        env(folder, categories=["java"])
