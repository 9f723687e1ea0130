"""HTTP clients of policies that act: `POST /act` for robots and `POST /get_action` for games. No ray, torch or vllm.

with ActClient("http://gpu-machine:8000") as robot:
    told = robot.act(Seen(images=[camera()], instruction="pick up the lego block", state=joints()))
    arm.move(told.actions[0])
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import httpx
import numpy as np

from deployments.client.http import failure_of
from deployments.client.images import Compression, exact
from deployments.client.observing import Seen, Told
from deployments.client.retrying import async_retrying, retrying
from deployments.errors import PolicyError


@dataclass(frozen=True, slots=True)
class _Call:
    path: str
    body: dict[str, Any]
    request_id: str
    deadline: float  # by time.monotonic
    may_be_list: bool = False  # stock arm servers know no ?format=dict

    @property
    def remaining_s(self) -> float:
        return max(0.001, self.deadline - time.monotonic())


class _Spoken:
    """What the two clients have in common: how questions are put, and answers read."""

    def __init__(
        self,
        base_url: str,
        key: str | None = None,
        policy: str | None = None,
        session_id: str | None = None,
        timeout_s: float = 10.0,
        retries: int = 3,
        compression: Compression = Compression(),  # noqa: B008  frozen
    ) -> None:
        """`policy`: needed where the server has several that could answer. `session_id`: whose history this is; by
        default the client's own. `timeout_s`: of a question, all its tries together."""
        self.session_id = session_id or uuid.uuid4().hex
        self._base_url = base_url
        self._policy = policy
        self._timeout_s = timeout_s
        self._retries = retries
        self._compression = compression
        self._headers = {"x-session-id": self.session_id} | ({"authorization": f"Bearer {key}"} if key else {})

    def _act(self, seen: Seen) -> _Call:
        images = [None if frame is None else self._compression.base64(frame) for frame in seen.images]
        body: dict[str, Any] = {"images": images, "instruction": seen.instruction, "taken_unix_s": seen.taken_unix_s}
        if seen.state is not None:
            body["state"] = seen.state_list()
        if seen.noise_seed is not None:
            body["seed"] = seen.noise_seed
        if seen.committed is not None:
            body |= {"prefix_action": seen.committed.actions.tolist(), "delay": seen.committed.delay}
        return self._call("/act?format=dict", body, seen.request_id)

    def _arm(self, seen: Seen) -> _Call:
        frame = next((frame for frame in seen.images if frame is not None), None)
        if frame is None:
            raise PolicyError("invalid_request", "a robot arm is asked with one frame: give it in images")
        body: dict[str, Any] = {"image": exact(frame), "instruction": seen.instruction}
        if seen.state is not None:
            body["proprio"] = seen.state_list()
        return replace(self._call("/act?format=dict", body, seen.request_id), may_be_list=True)

    def _call(self, path: str, body: Mapping[str, Any], request_id: str | None = None) -> _Call:
        named = {"model": self._policy} if self._policy else {}
        return _Call(path, {**body, **named}, request_id or uuid.uuid4().hex, time.monotonic() + self._timeout_s)

    def _headers_of(self, call: _Call) -> dict[str, str]:
        return self._headers | {"x-request-id": call.request_id, "x-timeout-s": f"{call.remaining_s:.3f}"}

    def _read(self, answer: httpx.Response, call: _Call) -> dict[str, Any]:
        request_id = call.request_id
        if not answer.is_success:
            raise failure_of(answer, request_id)
        try:
            found = answer.json()
        except ValueError as error:
            raise PolicyError(
                "internal", f"the server's answer is not JSON: {answer.text[:200]}", request_id
            ) from error
        if isinstance(found, list) and call.may_be_list:
            return {"action": found, "request_id": request_id}
        if not isinstance(found, dict):
            raise PolicyError("internal", f"the server answered {type(found).__name__}, not an object", request_id)
        return found

    def _unreachable(self, error: httpx.HTTPError, request_id: str) -> PolicyError:
        if isinstance(error, httpx.TimeoutException):
            return PolicyError("deadline_exceeded", f"no answer from {self._base_url} in time", request_id)
        return PolicyError("unavailable", f"{self._base_url} cannot be reached: {error}", request_id)


class ActClient(_Spoken):
    """Blocks until the answer is there. Raises PolicyError with the server's kind; "unavailable" when it cannot be
    reached, "deadline_exceeded" after `timeout_s`."""

    def __init__(self, base_url: str, **settings: Any) -> None:
        super().__init__(base_url, **settings)
        self._http = httpx.Client(base_url=base_url, timeout=self._timeout_s)

    def act(self, seen: Seen) -> Told:
        return told(self._answer(self._act(seen)))

    def act_arm(self, seen: Seen) -> Told:
        """As stock clients of robot arms ask: `image`, exactly as it is, `instruction` and `proprio`. Understood by any
        server of that contract, whether it answers a bare list or a dictionary. `seed` and `committed` are not sent."""
        return told(self._answer(self._arm(seen)))

    def get_action(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A game's question and answer as `POST /get_action` has them; see `deployments.client.minerl`."""
        return self._answer(self._call("/get_action", body))

    def reset(self) -> None:
        """Forgets the session's history."""
        self._answer(self._call("/reset", {}))

    def health(self) -> dict[str, Any]:
        """The body of /health, of an unhealthy server, too. Raises PolicyError where none answers."""
        try:
            found: dict[str, Any] = self._http.get("/health", headers=self._headers).json()
        except (httpx.HTTPError, ValueError) as error:
            raise PolicyError("unavailable", f"{self._base_url} cannot be reached: {error}") from error
        return found

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, call: _Call) -> dict[str, Any]:
        found: dict[str, Any] = retrying(self._retries, self._timeout_s)(self._once, call)
        return found

    def _once(self, call: _Call) -> dict[str, Any]:
        try:
            answer = self._http.post(
                call.path, json=call.body, headers=self._headers_of(call), timeout=call.remaining_s
            )
        except httpx.HTTPError as error:
            raise self._unreachable(error, call.request_id) from error
        return self._read(answer, call)


class AsyncActClient(_Spoken):
    """As ActClient, for asyncio; a cancelled question is cancelled at the server, too."""

    def __init__(self, base_url: str, **settings: Any) -> None:
        super().__init__(base_url, **settings)
        self._http = httpx.AsyncClient(base_url=base_url, timeout=self._timeout_s)

    async def act(self, seen: Seen) -> Told:
        return told(await self._answer(self._act(seen)))

    async def get_action(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._answer(self._call("/get_action", body))

    async def reset(self) -> None:
        await self._answer(self._call("/reset", {}))

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _answer(self, call: _Call) -> dict[str, Any]:
        found: dict[str, Any] = await async_retrying(self._retries, self._timeout_s)(self._once, call)
        return found

    async def _once(self, call: _Call) -> dict[str, Any]:
        try:
            answer = await self._http.post(
                call.path, json=call.body, headers=self._headers_of(call), timeout=call.remaining_s
            )
        except httpx.HTTPError as error:
            raise self._unreachable(error, call.request_id) from error
        return self._read(answer, call)


def told(answer: Mapping[str, Any]) -> Told:
    """What `/act?format=dict` says. A server of another make says less: then there is one action, and no version.
    Raises PolicyError where there is no action of numbers."""
    info = answer.get("info") or {}
    timing = answer.get("timing_ms") or {}
    request_id = str(answer.get("request_id", ""))
    try:
        actions = np.asarray(answer.get("actions") or [answer["action"]], np.float32)
        if actions.ndim != 2:
            raise ValueError("actions are rows of numbers")
    except (KeyError, TypeError, ValueError) as error:
        raise PolicyError("internal", f"the server answered no action: {str(answer)[:200]}", request_id) from error
    return Told(
        request_id=request_id,
        actions=actions,
        weight_version=int(answer.get("weight_version", 0)),
        text=str(info.get("vlm_response") or ""),
        parse_ok=bool(answer.get("parse_ok", answer.get("success", True))),
        interventions=tuple(answer.get("interventions", ())),
        infer_ms=float(timing.get("infer", info.get("response_ms") or 0.0)),
        observation_age_ms=float(answer.get("observation_age_ms", 0.0)),
    )
