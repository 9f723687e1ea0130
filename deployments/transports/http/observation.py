"""The body of `POST /act` in all its spellings, and the question to a policy that it asks."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field

from configs.policies import BasePolicy
from deployments.acting import observations
from deployments.acting.arrays import vector_from_json
from deployments.acting.observations import ImageLimits, decoded
from deployments.errors import PolicyError
from deployments.protocol.act import ActRequest, Committed, Frame, Observation, PastStep, Vector
from deployments.transports.http.answers import request_id_of
from deployments.transports.http.asked import session_id
from deployments.transports.http.requests import Seed, min_weight_version

MISSING = "Missing required fields: image and instruction"


class PastFrames(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    images: Annotated[list[Any], Field(max_length=16)] = []
    description: str = ""


class Past(BaseModel):
    """Earlier steps as the client tells them, oldest first."""

    model_config = ConfigDict(strict=True, extra="ignore")

    steps: Annotated[list[PastFrames], Field(max_length=64)] = []


class ActBody(BaseModel):
    """The fields of `/act`; others are ignored, because clients of several systems send more.

    `image` (one camera) or `images` (several, in the policy's order; null for one that sent nothing): nested lists
    [H][W][3], json_numpy objects, or base64 of an encoded image. `proprio`, or `state`: a list of numbers or
    json_numpy. `prefix_action` [P][D] and `delay`: actions that are already committed, for policies that answer chunks.
    """

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    model: str | None = None
    session_id: str | None = None
    image: Any = None
    images: Annotated[list[Any], Field(max_length=64)] | None = None
    instruction: str | None = None
    proprio: Any = None
    state: Any = None
    history: Past | None = None
    test: bool | None = False
    unnorm_key: str | None = None
    seed: Seed | None = None
    prefix_action: Annotated[list[Annotated[list[float], Field(max_length=1024)]], Field(max_length=4096)] | None = None
    delay: Annotated[int, Field(ge=0, le=4096)] = 0
    taken_unix_s: float | None = None


async def question(body: ActBody, request: Request, policy: BasePolicy, deadline_unix_s: float) -> ActRequest:
    images = [body.image] if body.images is None else body.images
    if body.instruction is None or all(image is None for image in images):
        raise PolicyError("invalid_request", MISSING)
    past = body.history.steps if body.history is not None else None
    counted = len(images) + sum(len(step.images) for step in past or ())
    if counted > policy.act.max_images:
        raise PolicyError(
            "too_large", f"{counted} images: the policy takes at most {policy.act.max_images} (history too)"
        )
    limits = ImageLimits.of(policy.act)
    return ActRequest(
        request_id=request_id_of(request),
        observation=Observation(
            images=tuple([None if image is None else await frame(image, limits) for image in images]),
            instruction=body.instruction,
            state=_state(body),
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


async def frame(image: object, limits: ImageLimits) -> Frame:
    """An image in any of its spellings, decoded off the event loop. Raises PolicyError."""
    match image:
        case np.ndarray():
            return observations.frame_from_array(image, limits)
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


def _state(body: ActBody) -> Vector | None:
    name, given = ("state", body.state) if body.proprio is None else ("proprio", body.proprio)
    return None if given is None else vector_from_json(given, name)


def _committed(rows: list[list[float]], delay: int) -> Committed:
    if len({len(row) for row in rows}) > 1:
        raise PolicyError("invalid_request", "prefix_action: all rows must have the same length")
    if delay > len(rows):
        raise PolicyError("invalid_request", f"delay: {delay} actions cannot be frozen of {len(rows)} in prefix_action")
    return Committed(np.asarray(rows, np.float32).reshape(len(rows), -1), delay)
