"""`POST /act` and `POST /reset` for robots: one observation as JSON in, one action out."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import orjson
from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from configs.policies import BasePolicy
from deployments.acting import observations
from deployments.acting.observations import decoded
from deployments.errors import PolicyError
from deployments.protocol.act import ActRequest, ActResult, Committed, Frame, Observation, PastStep, Vector
from deployments.transports.http.answers import WEIGHT_VERSION_HEADER, json_answer, request_id_of
from deployments.transports.http.asked import json_object, parsed, policy_name, session_id, time_limit_s
from deployments.transports.http.requests import Seed, min_weight_version, typed

MISSING = "Missing required fields: image and instruction"
MARGIN_S = 0.25  # what acts keeps the deadline itself, and tells more than a time-out here could

Answer = Literal["list", "dict"]


class Acts(Protocol):
    """What these routes need of `deployments.acting.act.Acting`."""

    async def act(self, policy: str | None, request: ActRequest) -> ActResult: ...

    async def reset(self, policy: str | None, session_id: str) -> None: ...


class Past(BaseModel):
    """Earlier steps as the client tells them, oldest first."""

    model_config = ConfigDict(strict=True, extra="ignore")

    steps: Annotated[list[PastFrames], Field(max_length=64)] = []


class PastFrames(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    images: Annotated[list[Any], Field(max_length=16)] = []
    description: str = ""


class ActBody(BaseModel):
    """The fields of `/act`; others are ignored, because clients of several systems send more.

    `image` (one camera) or `images` (several, in the policy's order; null for one that sent nothing): nested lists
    [H][W][3], json_numpy objects, or base64 of an encoded image. `proprio`, or `state`: a list of numbers or json_numpy.
    `prefix_action` [P][D] and `delay`: actions that are already committed, for policies that answer chunks.
    """

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    model: str | None = None
    session_id: str | None = None
    image: Any = None
    images: Annotated[list[Any], Field(max_length=64)] | None = None
    instruction: str | None = None
    proprio: list[float] | dict[str, Any] | None = None
    state: list[float] | dict[str, Any] | None = None
    history: Past | None = None
    test: bool | None = False
    unnorm_key: str | None = None
    seed: Seed | None = None
    prefix_action: Annotated[list[Annotated[list[float], Field(max_length=1024)]], Field(max_length=4096)] | None = None
    delay: Annotated[int, Field(ge=0, le=4096)] = 0
    taken_unix_s: float | None = None


class ResetBody(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    model: str | None = None
    session_id: str | None = None


async def act(acting: Acts, request: Request, policy: BasePolicy, limit_bytes: int) -> Response:
    """The answer to one `POST /act`: a bare list of numbers, the action of the next step; what else there is to say
    stands in headers. With `?format=dict` (or by the policy's setting) a dict, with `test` a small one.

    The body may also be `{"encoded": JSON of the whole body as a string}`: the answer is then a JSON string that holds
    the action as json_numpy. Raises PolicyError.
    """
    limit_s = time_limit_s(request, policy.request_deadline_s)
    deadline_unix_s = time.time() + limit_s
    payload = await json_object(request, limit_bytes, limit_s)
    encoded = "encoded" in payload
    body = typed(ActBody, await _inner(payload) if encoded else payload)
    question = await _question(body, request, policy, deadline_unix_s)
    async with asyncio.timeout(deadline_unix_s - time.time() + MARGIN_S):
        result = await acting.act(policy_name(request, body.model), question)
    if encoded:
        content: Any = orjson.dumps(json_numpy(result.actions[0])).decode()
    elif body.test:
        content = {"action": result.actions[0].tolist(), "vlm_response": result.text}
    elif _answer_format(request, policy) == "dict":
        content = _whole(result, policy)
    else:
        content = result.actions[0].tolist()
    return json_answer(content, headers=answer_headers(result))


async def reset(acting: Acts, request: Request, limit_bytes: int, limit_s: float) -> Response:
    """Forgets the session's history. The body may be empty, or name the session and the policy."""
    length = request.headers.get("content-length", "0")
    chunked = "transfer-encoding" in request.headers
    payload = await json_object(request, limit_bytes, limit_s) if length != "0" or chunked else {}
    body = typed(ResetBody, payload)
    await acting.reset(policy_name(request, body.model), session_id(request, body.session_id))
    return json_answer({"status": "reset successful"})


async def _inner(payload: Mapping[str, Any]) -> dict[str, Any]:
    text = payload["encoded"]
    if len(payload) != 1:
        raise PolicyError("invalid_request", "encoded: must be the only key of the body")
    if not isinstance(text, str):
        raise PolicyError("invalid_request", f"encoded: must be JSON as a string, not {type(text).__name__}")
    return await parsed(text.encode())


async def _question(body: ActBody, request: Request, policy: BasePolicy, deadline_unix_s: float) -> ActRequest:
    images = [body.image] if body.images is None else body.images
    if body.instruction is None or all(image is None for image in images):
        raise PolicyError("invalid_request", MISSING)
    past = body.history.steps if body.history is not None else None
    counted = len(images) + sum(len(step.images) for step in past or ())
    if counted > policy.act.max_images:
        raise PolicyError("too_large", f"{counted} images: the policy takes at most {policy.act.max_images} (history too)")
    limits = observations.limits_of(policy.act)
    return ActRequest(
        request_id=request_id_of(request),
        observation=Observation(
            images=tuple([None if image is None else await frame(image, limits) for image in images]),
            instruction=body.instruction,
            state=vector("state", body.state) if body.proprio is None else vector("proprio", body.proprio),
            taken_unix_s=body.taken_unix_s,
        ),
        session_id=session_id(request, body.session_id),
        deadline_unix_s=deadline_unix_s,
        history=None
        if past is None
        else tuple([PastStep(tuple([await frame(i, limits) for i in step.images]), step.description) for step in past]),
        committed=None if body.prefix_action is None else _committed(body.prefix_action, body.delay),
        noise_seed=body.seed,
        statistics=body.unnorm_key,
        min_weight_version=min_weight_version(request),
    )


async def frame(image: object, limits: observations.Limits) -> Frame:
    """An image in any of its spellings, decoded off the event loop. Raises PolicyError."""
    match image:
        case str():
            return await decoded(observations.frame_from_base64, image, limits)
        case list():
            return await decoded(observations.frame_from_nested, image, limits)
        case dict():
            return await decoded(observations.frame_from_numpy_json, image, limits)
        case _:
            raise PolicyError(
                "invalid_request",
                f"image: must be a nested list, a json_numpy object or base64 text, not {type(image).__name__}",
            )


def vector(name: str, given: list[float] | dict[str, Any] | None) -> Vector | None:
    """`proprio` or `state` [D]. Raises PolicyError."""
    if given is None:
        return None
    values = observations.array_from_numpy_json(given) if isinstance(given, dict) else given
    found = np.asarray(values, np.float32)
    if found.ndim != 1 or found.size > 1024:
        raise PolicyError("invalid_request", f"{name}: must be a list of at most 1024 numbers, not of shape {found.shape}")
    if not np.isfinite(found).all():
        raise PolicyError("invalid_request", f"{name}: must hold finite numbers")
    return found


def _committed(rows: list[list[float]], delay: int) -> Committed:
    if len({len(row) for row in rows}) > 1:
        raise PolicyError("invalid_request", "prefix_action: all rows must have the same length")
    if delay > len(rows):
        raise PolicyError("invalid_request", f"delay: {delay} actions cannot be frozen of {len(rows)} in prefix_action")
    return Committed(np.asarray(rows, np.float32).reshape(len(rows), -1), delay)


def json_numpy(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    """An array as the json_numpy package writes it."""
    data = np.ascontiguousarray(array)
    return {
        "__numpy__": base64.b64encode(data.tobytes()).decode(),
        "dtype": data.dtype.newbyteorder("<").str,
        "shape": list(data.shape),
    }


def _answer_format(request: Request, policy: BasePolicy) -> Answer:
    asked = request.query_params.get("format")
    if asked is None:
        return policy.act.arm.answer if policy.act.arm is not None else "list"
    if asked not in ("list", "dict"):
        raise PolicyError("invalid_request", f"format: must be list or dict; got {asked[:60]!r}")
    return "dict" if asked == "dict" else "list"


def _whole(result: ActResult, policy: BasePolicy) -> dict[str, Any]:
    return {
        "action": result.actions[0].tolist(),
        "actions": result.actions.tolist(),
        "success": result.parse_ok,
        "info": {
            "vlm_response": result.text,
            "model": policy.name,
            "provider": getattr(policy, "kind", ""),
            "response_ms": round(result.total_ms, 3),
        },
        "request_id": result.request_id,
        "observation_id": result.observation_id or result.request_id,
        "weight_version": result.weight_version,
        "parse_ok": result.parse_ok,
        "interventions": list(result.interventions),
        "observation_age_ms": round(result.observation_age_ms, 3),
        "timing_ms": timing_ms(result),
    }


class Timed(Protocol):
    """What the answers of robots and players have in common."""

    @property
    def request_id(self) -> str: ...
    @property
    def weight_version(self) -> int: ...
    @property
    def parse_ok(self) -> bool: ...
    @property
    def queue_ms(self) -> float: ...
    @property
    def infer_ms(self) -> float: ...
    @property
    def total_ms(self) -> float: ...
    @property
    def observation_age_ms(self) -> float: ...


def timing_ms(result: Timed) -> dict[str, float]:
    times = {"queue": result.queue_ms, "infer": result.infer_ms, "total": result.total_ms}
    return {name: round(milliseconds, 3) for name, milliseconds in times.items()}


def answer_headers(result: Timed) -> dict[str, str]:
    """What a bare list of numbers cannot say."""
    interventions = ",".join(getattr(result, "interventions", ()))
    return {
        "x-request-id": result.request_id,
        WEIGHT_VERSION_HEADER: str(result.weight_version),
        "x-parse-ok": "true" if result.parse_ok else "false",
        "x-observation-age-ms": f"{result.observation_age_ms:.3f}",
        "x-timing-ms": ", ".join(f"{name}={value}" for name, value in timing_ms(result).items()),
        **({"x-interventions": interventions} if interventions else {}),
    }
