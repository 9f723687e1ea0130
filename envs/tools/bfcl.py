"""Single-turn function calling on rows of the Berkeley Function-Calling Leaderboard, or on rows in its layout."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from envs.base import (
    Env,
    EnvSpec,
    EpisodeOver,
    Observation,
    RewardPart,
    SettingError,
    Split,
    StepResult,
    check_choice,
    in_split,
)
from envs.tools import generated
from envs.tools.ast_match import LEFT_OUT, Wrong, check_calls
from envs.tools.rows import CATEGORIES, SAMPLE, Row, as_tool, read_rows
from envs.tools.tool_calls import BLOCK, HERMES, Call, Unreadable, read_calls

Form = Literal["native", "tagged"]
GENERATED = "generated"
MOST_TOLD = 1000  # characters of what is wrong with a call
NOTHING_FITS = "None of the functions fits."
EXAMPLES: dict[str, Any] = {"string": "x", "integer": 1, "float": 1.0, "boolean": True, "dict": {}, "any": "x"}
TAGGED_PROMPT = (
    "You can call functions. If some of them answer the question, answer with nothing but "
    "<function_calls>[name(parameter=value), ...]</function_calls>, written in Python. If none of them fits, or a "
    "value that it needs is missing, say so without a call."
)


class FunctionCalling(Env):
    """Settings: `categories` (default: all of the single-turn ones in Python), `data` (a folder with the whole set, in
    the leaderboard's layout; default: the sample that ships with the package; `generated`: rows made by a program, for
    tiny models, with held-out functions), `form` of the calls (native: the chat
    template shows the functions and the policy answers with `<tool_call>`, as hermes' format has it; tagged: functions
    and calls are text), `format_reward` for calls that can be read and are wrong (below 1), `split` by row.

    The reward is 1 for calls that the leaderboard's check accepts, and that alone is success.
    """

    def __init__(
        self,
        categories: Sequence[str] | None = None,
        data: str | None = None,
        form: Form = "native",
        format_reward: float = 0.0,
        split: Split = "all",
    ) -> None:
        check_choice("split", split, ("all", "train", "heldout"))
        check_choice("form", form, ("native", "tagged"))
        if not 0 <= format_reward < 1:
            raise SettingError(
                f"format_reward must be at least 0 and below 1, which a right call gets; got {format_reward}"
            )
        known = generated.CATEGORIES if data == GENERATED else CATEGORIES
        chosen = (categories,) if isinstance(categories, str) else tuple(categories or known)
        for category in chosen:
            check_choice("categories", category, known)
        self._rows, longest, alphabet = _played(chosen, data, form, split)
        self._form, self._format_reward = form, format_reward
        self._row: Row | None = None
        self.spec = EnvSpec(
            name="bfcl",
            one_line="call the right functions with the right values, or none",
            system_prompt="" if form == "native" else TAGGED_PROMPT,
            action_regex=r"(?s).+",
            horizon=1,
            best_return=1.0,
            best_success=1.0,
            failure_return=0.0,
            reward_parts={"correct": RewardPart(), "format": RewardPart(lost_high=format_reward)},
            longest_text=longest + MOST_TOLD,
            alphabet=alphabet,
        )

    def reset(self, seed: int) -> Observation:
        self._row = random.Random(seed).choice(self._rows)
        return self._observe(self._row)

    def step(self, action: str) -> StepResult:
        row, self._row = self._row, None
        if row is None:
            raise EpisodeOver("the episode is over: call reset")
        tried = bool(HERMES.search(action) or BLOCK.search(action))
        calls: list[Call] = []
        reason, readable = "", True
        try:
            calls = read_calls(action)
        except Unreadable as error:
            reason, readable = str(error), not tried
        try:
            check_calls(row.category, row.functions, row.truths, calls)
        except Wrong as wrong:
            reason, right = reason or str(wrong), False
        else:
            right = True
        shaped = self._format_reward if calls and not right and "irrelevance" not in row.category else 0.0
        rewards = {"correct": float(right), "format": shaped}
        info = {
            "parse_ok": readable,
            "illegal": not readable,
            "outcome": "win" if right else "loss",
            "rewards": rewards,
            "category": row.category,
            "row": row.id,
        }
        # What the policy wrote may hold what no tokenizer can encode, and any number of it.
        told = "Right." if right else f"Wrong: {ascii(reason)[1:-1][:MOST_TOLD]}"
        return StepResult(Observation(told), sum(rewards.values()), True, False, right, info)

    def _observe(self, row: Row) -> Observation:
        tools = tuple(map(as_tool, row.functions)) if self._form == "native" else ()
        return Observation(_text(row, self._form), tools=tools, earlier=row.chat[:-1])

    def expert_action(self, rng: random.Random, noise: float = 0.0, illegal_noise: float = 0.0) -> str:
        """Calls that the row accepts. `noise` calls a function with made-up values, `illegal_noise` breaks the form."""
        if self._row is None:
            raise EpisodeOver("the episode is over: call reset")
        row, drawn = self._row, rng.random()
        if drawn < illegal_noise:
            return "<tool_call>{" if self._form == "native" else "<function_calls>[f("
        if "irrelevance" in row.category and drawn >= illegal_noise + noise:
            return NOTHING_FITS
        functions = {function["name"]: function for function in row.functions}
        calls = [_accepted(functions[name], truth[name], rng) for truth in row.truths for name in truth]
        if drawn < illegal_noise + noise or not calls:
            calls = [_made_up(rng.choice(row.functions))]
        return written(calls, self._form)


@lru_cache(maxsize=16)
def _played(
    categories: tuple[str, ...], data: str | None, form: Form, split: Split
) -> tuple[tuple[Row, ...], int, str]:
    """The rows, their longest text and its alphabet: once for all episodes with these settings. Raises SettingError."""
    if data == GENERATED:
        rows = [row for category in categories for row in generated.generated_rows(category)]
    else:
        rows = [row for category in categories for row in read_rows(Path(data) if data else SAMPLE, category)]
    played = tuple(row for row in rows if in_split(f"bfcl/{row.split_by}", split))
    if not played:
        raise SettingError(f"categories: none of the {len(rows)} rows is in the split {split!r}")
    texts = [_text(row, form) for row in played]
    return played, max(map(len, texts)), "".join(sorted(set(string.printable).union(*texts)))


def _text(row: Row, form: Form) -> str:
    _, question = row.chat[-1]
    if form == "native":
        return question
    functions = "\n".join(json.dumps(function, ensure_ascii=False) for function in row.functions)
    return f"{question}\n\nFunctions:\n{functions}"


def written(calls: Sequence[Call], form: Form) -> str:
    """Calls as a policy answers with them."""
    if form == "native":
        blocks = (json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False) for call in calls)
        return "\n".join(f"<tool_call>\n{block}\n</tool_call>" for block in blocks)
    texts = (
        f"{call.name}({', '.join(f'{name}={value!r}' for name, value in call.arguments.items())})" for call in calls
    )
    return f"<function_calls>[{', '.join(texts)}]</function_calls>"


def _accepted(function: Mapping[str, Any], parameters: Mapping[str, Sequence[Any]], rng: random.Random) -> Call:
    """A call with one of the accepted values of each parameter, without those that may be left out."""
    chosen = {}
    for name, values in parameters.items():
        if name in function["parameters"].get("required", ()) or LEFT_OUT not in values:
            chosen[name] = _filled(rng.choice([each for each in values if each != LEFT_OUT] or [LEFT_OUT]))
    return Call(function["name"], chosen)


def _filled(value: Any) -> Any:
    """A value that is written for an accepted one: of a dictionary's accepted values, the first of each key. In a few
    rows of the leaderboard a key has a value and not a list of them, which its check never accepts."""
    if isinstance(value, dict):
        lists = {key: values if isinstance(values, list) else [values] for key, values in value.items()}
        return {key: _filled(values[0]) for key, values in lists.items() if LEFT_OUT not in values}
    return [_filled(each) for each in value] if isinstance(value, list) else value


def _made_up(function: Mapping[str, Any]) -> Call:
    parameters = function["parameters"]
    required = {name: parameters["properties"][name] for name in parameters.get("required", ())}
    return Call(function["name"], {name: EXAMPLES.get(each["type"], []) for name, each in required.items()})
