"""Stands for verifiers 0.1.14 in tests: the part of its interface that the adapter uses, and some environments. As
there, a rollout asks a client for answers, its state is a dictionary, and making an environment takes the signals."""

from __future__ import annotations

import random
import re
import signal
from typing import Any

__version__ = "0.1.14"


class Parser:
    def parse_answer(self, completion: list[Any]) -> str | None:
        content = completion[-1]["content"] if isinstance(completion[-1], dict) else completion[-1].content
        if "explode" in content:
            raise RecursionError(content)
        found = re.search("<answer>(.*)</answer>", content)
        return found and found[1]


class Rubric:
    def __init__(self) -> None:
        self.funcs = [judged]

    async def score_rollout(self, state: dict[str, Any]) -> None:
        for func in self.funcs:
            try:  # as the library does
                await func(state)
            except Exception:
                state |= {"reward": 0.0, "metrics": {}}
                return
        right = float(Parser().parse_answer(state["completion"]) == state["input"]["answer"])
        state |= {"reward": right + 0.2, "metrics": {"right": right, "turns": len(state["completion"])}}

    async def cleanup(self, state: dict[str, Any]) -> None:
        CLEANED.append(state.get("stop_condition"))


async def judged(state: dict[str, Any]) -> float:
    if "judge" in str(state["completion"]):
        raise ConnectionError("the judge is down")
    return 0.0


CLEANED: list[Any] = []


class Environment:
    max_turns, tools, pass_threshold = 1, None, 0.5
    requires_group_rollouts = False
    eval_dataset_source: str | None = None

    def __init__(self, rows: int = 40) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.parser, self.rubric = Parser(), Rubric()
        self._rows = [self.row(number) for number in range(rows)]

    def row(self, number: int) -> dict[str, Any]:
        chat = [{"role": "system", "content": "Add."}, {"role": "user", "content": f"{number} + {number}?"}]
        return {"prompt": chat, "answer": str(2 * number), "example_id": number}

    def get_dataset(self) -> list[dict[str, Any]]:
        return self._rows

    def get_eval_dataset(self) -> list[dict[str, Any]]:
        return [self.row(1000)]

    async def rollout(self, row: Any, client: Any, model: str, sampling_args: Any) -> dict[str, Any]:
        state: dict[str, Any] = {"input": row, "completion": [], "hint": random.randrange(100)}
        chat = list(row["prompt"])
        for turn in range(self.max_turns):
            response = await client.get_response(
                prompt=chat, model=model, sampling_args=sampling_args, tools=self.tools, state=state
            )
            chat = [*chat, response.message]
            state["completion"].append(response.message)
            if self.over(response.message.content, row["answer"], state):
                return state
            if turn + 1 < self.max_turns:
                chat = self.reply(chat, state)
        return state | {"stop_condition": "max_turns_reached"}

    def over(self, text: str, answer: str, state: dict[str, Any]) -> bool:
        if "disk" in text:
            state["error"] = OSError("disk is full")
            return True
        if f"<answer>{answer}</answer>" in text:
            state["stop_condition"] = "has_final_env_response"
        return "stop_condition" in state

    def reply(self, chat: list[Any], state: dict[str, Any]) -> list[Any]:
        return [*chat, {"role": "user", "content": [{"type": "text", "text": f"No ({state['hint']})."}]}]


class Several(Environment):
    max_turns = 3


class Rewriting(Several):
    def reply(self, chat: list[Any], state: dict[str, Any]) -> list[Any]:
        return [{"role": "user", "content": "All anew."}]


class WithTools(Environment):
    tools = ({"name": "f"},)


class OfGroups(Environment):
    requires_group_rollouts = True


class WithEvaluation(Environment):
    eval_dataset_source = "theirs"


def load_environment(env_id: str, **arguments: Any) -> Environment:
    known = {cls.__name__: cls for cls in (Environment, Several, Rewriting, WithTools, OfGroups, WithEvaluation)}
    if env_id not in known:
        raise ValueError(f"Could not import '{env_id}' environment.")
    return known[env_id](**arguments)
