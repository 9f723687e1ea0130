"""Environments behind an OpenEnv server as ours: `openenv:http://host:8000`.

Spoken over the server's WebSocket (`/ws`), where each connection has an environment of its own. Its HTTP routes
`/reset` and `/step` make a fresh environment for every request, so no episode can be played over them. Messages, as
in openenv-core 0.3:

    {"type": "reset", "data": {"seed": 7}}       {"type": "observation", "data": {"observation": {}, "reward", "done"}}
    {"type": "step", "data": {action}}           the same
                                                 or {"type": "error", "data": {"message", "code"}}
"""

from __future__ import annotations

import contextlib
import json
import math
import random
from typing import Any

from envs.base import Env, EnvSpec, EnvUsageError, EpisodeOver, Observation, StepResult
from envs.parsing import raw_tag_content

MOST_BYTES = 100 << 20  # of a message, as OpenEnv's own client has it
SEEDS = 2**31  # the server takes no negative seeds
REFUSED = ("VALIDATION_ERROR",)  # the action does not fit the server's schema: the answer was malformed


class OpenEnv(Env):
    """One environment of an OpenEnv server, with a connection of its own.

    Settings: `action_field`, the field of the action that takes the policy's answer as text; None: the answer is
    `<action>{"field": value}</action>`, the action itself as JSON. `observation_field`, the field of the observation
    that the policy sees; None: all of it, as JSON. `system_prompt`; `success_reward`, the return from which on an
    episode is a success; `best_return` that can be reached; `max_steps`, after which an episode is truncated;
    `timeout_s` of a message.

    A malformed action, or one that the server's schema refuses, costs a step and changes nothing.
    """

    blocking = True  # it waits for the network

    def __init__(
        self,
        url: str,
        /,
        action_field: str | None = None,
        observation_field: str | None = None,
        system_prompt: str | None = None,
        success_reward: float = 1.0,
        best_return: float | None = None,
        max_steps: int = 100,
        timeout_s: float = 60.0,
    ) -> None:
        """Connects. Raises EnvUsageError when nobody answers."""
        self._url, self._action_field, self._observation_field = url.rstrip("/"), action_field, observation_field
        self._success_reward, self._timeout_s = success_reward, timeout_s
        self._over = True
        asked = (
            "" if action_field else ' Answer <action>JSON</action>, for example <action>{"field": "value"}</action>.'
        )
        self.spec = EnvSpec(
            name=f"openenv:{url}",
            one_line=f"the OpenEnv server at {url}",
            system_prompt=f"You act in an environment.{asked}" if system_prompt is None else system_prompt,
            action_regex=r"(?s).+" if action_field else r"(?s)<action>\{.*\}</action>",
            horizon=max_steps,
            best_return=math.nan if best_return is None else best_return,
            best_success=1.0,
        )
        self._opened = contextlib.ExitStack()
        self._connection = self._connected()

    def reset(self, seed: int) -> Observation:
        document = self._asked({"type": "reset", "data": {"seed": seed % SEEDS}})
        self._steps, self._return, self._over = 0, 0.0, False
        return self._shown(document)

    def step(self, action: str) -> StepResult:
        if self._over:
            raise EpisodeOver("the episode is over: call reset")
        self._steps += 1
        payload = self._payload(action)
        if payload is None:
            return self._malformed("The answer holds no <action> with a JSON object.")
        try:
            document = self._asked({"type": "step", "data": payload})
        except _Refused as refused:
            return self._malformed(f"The action was refused: {refused}")
        done = bool(document.get("done"))
        if done and document.get("reward") is None:
            raise RuntimeError(f"{self.spec.name} ended the episode without a reward: it did not score it")
        reward = float(document.get("reward") or 0.0)
        self._return += reward
        info = {"parse_ok": True, "illegal": False}
        return self._result(self._shown(document), reward, done, info)

    def _payload(self, action: str) -> dict[str, Any] | None:
        """The action's document; None for a malformed answer."""
        if self._action_field is not None:
            return {self._action_field: action}
        content = raw_tag_content(action, "action")
        try:
            read = json.loads(content or "")
        except ValueError:
            return None
        return read if isinstance(read, dict) else None

    def _malformed(self, why: str) -> StepResult:
        told = f"{why[:200]}\n{self._seen.text}"
        return self._result(Observation(told), 0.0, False, {"parse_ok": False, "illegal": True})

    def _result(self, seen: Observation, reward: float, done: bool, info: dict[str, Any]) -> StepResult:
        truncated = not done and self._steps >= self.spec.horizon
        self._over = done or truncated
        success = done and self._return >= self._success_reward
        return StepResult(seen, reward, done, truncated, success, info)

    def _shown(self, document: dict[str, Any]) -> Observation:
        """Raises EnvUsageError for a field that the observation does not have."""
        observation = document.get("observation", {})
        field = self._observation_field
        if field is not None and field not in observation:
            raise EnvUsageError(f"{self.spec.name} observes {', '.join(observation) or 'nothing'}, and no {field!r}")
        shown = observation if field is None else observation[field]
        text = shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False, sort_keys=True)
        self._seen = Observation(text)
        return self._seen

    def _asked(self, message: dict[str, Any]) -> dict[str, Any]:
        """The data of the server's answer. Raises _Refused, RuntimeError for every other error, TimeoutError."""
        self._connection.send(json.dumps(message))
        answer = json.loads(self._connection.recv(timeout=self._timeout_s))
        data: dict[str, Any] = answer.get("data", {})
        if answer.get("type") == "observation":
            return data
        told = f"{data.get('message', answer)} {data.get('errors', '')}".strip()
        if data.get("code") in REFUSED:
            raise _Refused(told)
        raise RuntimeError(f"{self.spec.name}: {told} ({data.get('code', 'no code')})")

    def expert_action(self, rng: random.Random, noise: float = 0.0, illegal_noise: float = 0.0) -> str:
        """Raises EnvUsageError: a server names no expert."""
        raise EnvUsageError(f"{self.spec.name} has no scripted expert: start from a model that can act (no warm start)")

    def close(self) -> None:
        """Ends the connection, and with it the session: the server closes its environment."""
        self._opened.close()

    def _connected(self) -> Any:
        from websockets.sync.client import connect

        address = f"{self._url.replace('http', 'ws', 1)}/ws"
        try:
            return self._opened.enter_context(connect(address, open_timeout=self._timeout_s, max_size=MOST_BYTES))
        except (OSError, TimeoutError, ValueError) as error:
            raise EnvUsageError(f"no OpenEnv server answers at {address}: {error}") from error
        except Exception as error:  # websockets' own: not a WebSocket, or no such address
            raise EnvUsageError(f"{address} is no OpenEnv server: {type(error).__name__}: {error}") from error


class _Refused(Exception):
    """The server's schema does not take the action."""
