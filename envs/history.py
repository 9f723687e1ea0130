"""How past turns reach the policy: none, full, scratchpad, optimal_scratchpad. Pure: observations to chat messages."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any

from envs.base import EnvSpec, EnvUsageError, Observation
from envs.parsing import raw_tag_content

Message = dict[str, Any]

TOOLS = "tools"  # role of a first message with the tools as JSON: whoever renders the chat gives them to its template
SCRATCHPAD_INSTRUCTION = (
    "You keep a note between turns. Write it as <scratchpad>...</scratchpad> in your answer; "
    "it is shown to you in the next turn."
)


class HistoryUnsupported(EnvUsageError):
    """The environment cannot be played with this strategy."""


class History(ABC):
    """One episode's memory. `append_only`: each prompt extends the previous one and its answer."""

    append_only = False

    def start(self, system_prompt: str, observation: Observation) -> list[Message]:
        """Messages of the first turn. An empty system prompt leaves the system message out."""
        self._system = _opening(system_prompt, observation)
        return [*self._system, self._user(observation)]

    @abstractmethod
    def next(self, answer: str, observation: Observation) -> list[Message]:
        """All messages of the next turn, after the policy's answer."""

    def _user(self, observation: Observation, prefix: str = "") -> Message:
        text = prefix + observation.text
        if observation.image is None:
            return {"role": "user", "content": text}
        return {
            "role": "user",
            "content": [{"type": "image", "image": observation.image}, {"type": "text", "text": text}],
        }


class NoHistory(History):
    """Each prompt holds the system prompt and the current observation, nothing else."""

    def next(self, answer: str, observation: Observation) -> list[Message]:
        return [*self._system, self._user(observation)]


class FullHistory(History):
    """Each prompt holds the whole chat so far."""

    append_only = True

    def start(self, system_prompt: str, observation: Observation) -> list[Message]:
        self._messages = super().start(system_prompt, observation)
        return list(self._messages)

    def next(self, answer: str, observation: Observation) -> list[Message]:
        self._messages += [{"role": "assistant", "content": answer}, self._user(observation)]
        return list(self._messages)


class Scratchpad(History):
    """Each prompt holds the policy's last note and the current observation. An answer without a note changes none."""

    def start(self, system_prompt: str, observation: Observation) -> list[Message]:
        self._note = ""
        return super().start(f"{system_prompt}\n{SCRATCHPAD_INSTRUCTION}".strip(), observation)

    def next(self, answer: str, observation: Observation) -> list[Message]:
        written = raw_tag_content(answer, "scratchpad")
        self._note = self._note if written is None else written
        return [*self._system, self._user(observation, f"<scratchpad>{self._note}</scratchpad>\n")]


class OptimalScratchpad(History):
    """As Scratchpad, but the environment writes a perfect note: an upper bound for what a memory can give."""

    def start(self, system_prompt: str, observation: Observation) -> list[Message]:
        super().start(system_prompt, observation)
        return self.next("", observation)

    def next(self, answer: str, observation: Observation) -> list[Message]:
        if observation.note is None:
            raise HistoryUnsupported("the environment gave no note: use another history strategy")
        return [*self._system, self._user(observation, f"<scratchpad>{observation.note}</scratchpad>\n")]


def _opening(system_prompt: str, observation: Observation) -> list[Message]:
    """What every prompt of the episode begins with: tools, one system message, the chat before the first turn."""
    tools = json.dumps([*map(dict, observation.tools)], ensure_ascii=False) if observation.tools else ""
    system = "\n\n".join(text for text in (system_prompt, *_texts(observation, "system")) if text)
    opening = [(role, text) for role, text in ((TOOLS, tools), ("system", system)) if text]
    opening += [(role, text) for role, text in observation.earlier if role != "system"]
    return [{"role": role, "content": text} for role, text in opening]


def _texts(observation: Observation, role: str) -> list[str]:
    return [text for its, text in observation.earlier if its == role]


STRATEGIES: dict[str, type[History]] = {
    "none": NoHistory,
    "full": FullHistory,
    "scratchpad": Scratchpad,
    "optimal_scratchpad": OptimalScratchpad,
}
ALIASES = {"no_history": "none", "full_history": "full"}


def make_history(strategy: str, spec: EnvSpec) -> History:
    """A fresh memory for one episode. Raises HistoryUnsupported."""
    name = ALIASES.get(strategy.lower(), strategy.lower())
    if name not in STRATEGIES:
        raise HistoryUnsupported(f"no history strategy {strategy!r}; strategies: {', '.join(STRATEGIES)}")
    if "scratchpad" in name and not spec.supports_scratchpad:
        raise HistoryUnsupported(f"{spec.name} has no scratchpad: use history none or full")
    return STRATEGIES[name]()
