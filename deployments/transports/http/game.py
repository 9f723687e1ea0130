"""`POST /get_action` for MineRL players: the last frames as JSON in, one action with every key out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any, Protocol

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from configs.policies import BasePolicy
from deployments.acting.observations import ImageLimits, decoded, frame_from_base64
from deployments.errors import PolicyError
from deployments.protocol.act import Frame
from deployments.protocol.game import BUTTONS, CAMERA, GameAction, PlayRequest, PlayResult, PlayStep, no_op
from deployments.transports.http.answers import answer_headers, in_time, json_answer, request_id_of, timing_ms
from deployments.transports.http.asked import json_object, longest_s, policy_name, session_id, time_limit_s
from deployments.transports.http.requests import min_weight_version, typed
from deployments.transports.policies import ServedPolicies

NOTHING_TO_SEE = "Either 'image' or 'history' must be provided"


class Plays(Protocol):
    """What this route needs of `deployments.acting.act.Acting`."""

    async def play(self, policy: str | None, request: PlayRequest) -> PlayResult: ...


class EncodedImage(BaseModel):
    """`data`: base64 of an encoded image."""

    model_config = ConfigDict(strict=True, extra="ignore")

    data: str


class GameStep(BaseModel):
    """A frame, and what was done on it; null for the one that is to be decided."""

    model_config = ConfigDict(strict=True, extra="ignore")

    image: EncodedImage
    action: dict[str, Any] | None = None


class GameBody(BaseModel):
    """`history` wins over `image`; its last frame is the current one, and the last `max_history_length` are shown to
    the model. Fields that are not named here are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    model: str | None = None
    session_id: str | None = None
    task_name: str
    image: EncodedImage | None = None
    history: Annotated[list[GameStep], Field(max_length=4096)] | None = None
    step: Annotated[int, Field(ge=0, lt=2**53)] = 0
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] = 512
    max_history_length: Annotated[int, Field(ge=1, lt=2**31)] = 5
    taken_unix_s: float | None = None


async def get_action(acting: Plays, request: Request, served: ServedPolicies) -> Response:
    """The answer to one `POST /get_action`. Raises PolicyError."""
    config = served.config
    arrived, limit_s = time.time(), time_limit_s(request, longest_s(config.policies))
    body = typed(GameBody, await json_object(request, config, limit_s))
    policy = await served.chosen(policy_name(request, body.model), lambda policy: policy.plays)
    deadline_unix_s = arrived + min(limit_s, policy.request_deadline_s)
    request_id, session, version = (
        request_id_of(request),
        session_id(request, body.session_id),
        min_weight_version(request),
    )
    with served.under_way(policy):
        asked = await question(body, policy, request_id, session, deadline_unix_s, version)
        result = await in_time(acting.play(policy.name, asked), deadline_unix_s)
    return json_answer(content(result), headers=answer_headers(result))


async def question(
    body: GameBody,
    policy: BasePolicy,
    request_id: str,
    session_id: str,
    deadline_unix_s: float,
    min_weight_version: int = 0,
) -> PlayRequest:
    """What a body asks, of any transport. Raises PolicyError."""
    return PlayRequest(
        request_id=request_id,
        session_id=session_id,
        deadline_unix_s=deadline_unix_s,
        task=body.task_name,
        steps=await _steps(body, policy),
        step=body.step,
        temperature=body.temperature,
        max_tokens=body.max_tokens,
        max_history_length=body.max_history_length,
        min_weight_version=min_weight_version,
        taken_unix_s=body.taken_unix_s,
    )


async def _steps(body: GameBody, policy: BasePolicy) -> list[PlayStep]:
    """The frames that the model will be shown; older ones are not even decoded."""
    limits = ImageLimits.of(policy.act)
    if not body.history:
        if body.image is None:
            raise PolicyError("invalid_request", NOTHING_TO_SEE)
        return [PlayStep(await _frame(body.image, limits))]
    kept = body.history[-min(body.max_history_length, policy.act.max_images) :]
    return [PlayStep(await _frame(step.image, limits), _told(step.action)) for step in kept]


async def _frame(image: EncodedImage, limits: ImageLimits) -> Frame:
    try:
        return await decoded(frame_from_base64, image.data, limits)
    except PolicyError as error:
        raise PolicyError(error.kind, f"Invalid image data: {error.message}") from error


def _told(action: Mapping[str, Any] | None) -> GameAction | None:
    """An action as a client tells it, with every key; keys that no action has are ignored."""
    if action is None:
        return None
    found = no_op()
    for name in BUTTONS:
        if name in action:
            found[name] = int(_is_pressed(name, action[name]))
    if CAMERA in action:
        found[CAMERA] = _angles(action[CAMERA])
    return found


def _is_pressed(name: str, value: object) -> bool:
    if not isinstance(value, int | float) or value not in (0, 1):
        raise PolicyError("invalid_request", f"history: {name} must be 0 or 1; got {str(value)[:60]}")
    return bool(value)


def _angles(value: object) -> list[float]:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(angle, int | float) for angle in value):
        return [float(angle) for angle in value]
    raise PolicyError("invalid_request", f"history: {CAMERA} must be [pitch, yaw]; got {str(value)[:60]}")


def content(result: PlayResult) -> dict[str, Any]:
    """The answer as JSON."""
    return {
        "action": result.action,
        "reasoning": result.reasoning,
        "step": result.step,
        "parse_ok": result.parse_ok,
        "request_id": result.request_id,
        "observation_id": result.observation_id or result.request_id,
        "weight_version": result.weight_version,
        "observation_age_ms": round(result.observation_age_ms, 3),
        "timing_ms": timing_ms(result),
    }
