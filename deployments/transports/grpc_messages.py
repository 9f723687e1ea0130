"""Between the messages of policy.proto and ours. Pure; nothing of gRPC itself."""

from __future__ import annotations

import time

import numpy as np
import xxhash

from deployments.acting.observations import ImageLimits, frame_from_encoded, frame_from_raw_float32
from deployments.errors import PolicyError
from deployments.protocol import policy_pb2 as pb
from deployments.protocol.act import ActRequest, ActResult, Committed, Frame, Observation, Vector

NO_STATE = "Robot state is required but was not provided in the request"
MOST_NUMBERS = 4096  # of a state, or of one action
MOST_ACTIONS = 4096  # of a prefix


def act_request(
    message: pb.ObservationRequest, session_id: str, deadline_unix_s: float, limits: ImageLimits, max_images: int
) -> ActRequest:
    """The question in a message; its images are decoded here, so call it in a thread. Raises PolicyError.

    The stock client numbers its requests, so two robots use the same ids: ours is the id with a digest of the whole
    message. A retry sends the same bytes and has the same one, and nobody else does.
    """
    if len(message.images) > max_images:
        raise PolicyError("too_large", f"{len(message.images)} images; the policy takes at most {max_images}")
    state = _numbers("robot_state.state", message.robot_state.state)
    if not state.size:
        raise PolicyError("invalid_request", NO_STATE)
    return ActRequest(
        request_id=f"{message.request_id}#{digest(message)}",
        observation=Observation(
            images=tuple(_frame(i, image, limits) for i, image in enumerate(message.images)),
            instruction=message.prompt,
            state=state,
            taken_unix_s=message.timestamp_ns / 1e9 if message.timestamp_ns > 0 else None,
        ),
        session_id=session_id,
        deadline_unix_s=deadline_unix_s,
        committed=_committed(message),
        noise_seed=message.noise_seed if message.HasField("noise_seed") else None,
    )


def digest(message: pb.ObservationRequest) -> str:
    """32 hexadecimal characters that no other message has."""
    return xxhash.xxh3_128_hexdigest(message.SerializeToString(deterministic=True))


def response(request_id: str, result: ActResult) -> pb.ActionChunkResponse:
    """The answer to the request that the client calls `request_id`."""
    return pb.ActionChunkResponse(
        action_chunk=[pb.ActionVector(values=row.tolist()) for row in result.actions],
        timestamp_ns=time.time_ns(),
        request_id=request_id,
        inference_time_ms=result.infer_ms,
        weight_version=result.weight_version,
        observation_age_ms=result.observation_age_ms,
        interventions=result.interventions,
        observation_id=result.observation_id.rpartition("#")[0] or request_id,
    )


def _frame(camera: int, image: pb.CameraImage, limits: ImageLimits) -> Frame | None:
    """None for a camera that sent nothing, which keeps the place of the cameras behind it."""
    if not image.image_data:
        return None
    match image.encoding:
        case "jpeg" | "png":
            return frame_from_encoded(image.image_data, limits)
        case "raw":
            return frame_from_raw_float32(image.image_data, limits)
        case other:
            raise PolicyError(
                "invalid_request", f"Unknown image encoding: {other[:40]!r} of camera {camera}; jpeg, png or raw"
            )


def _committed(message: pb.ObservationRequest) -> Committed | None:
    rows = [row.values for row in message.prefix_action]
    if not 0 <= message.delay <= len(rows):
        raise PolicyError(
            "invalid_request",
            f"delay {message.delay}: must be 0 or more, and at most the {len(rows)} rows of prefix_action",
        )
    if not rows:
        return None
    if len(rows) > MOST_ACTIONS:
        raise PolicyError("too_large", f"{len(rows)} rows of prefix_action; the limit is {MOST_ACTIONS}")
    if len({len(row) for row in rows}) > 1:
        raise PolicyError("invalid_request", "prefix_action: all rows must have the same length")
    actions = np.stack([_numbers("prefix_action", row) for row in rows])
    if not actions.size:
        raise PolicyError("invalid_request", "prefix_action: its rows are empty")
    return Committed(actions, message.delay)


def _numbers(name: str, values: object) -> Vector:
    found = np.asarray(values, np.float32)
    if found.size > MOST_NUMBERS:
        raise PolicyError("too_large", f"{name}: {found.size} numbers; the limit is {MOST_NUMBERS}")
    if not np.isfinite(found).all():
        raise PolicyError("invalid_request", f"{name}: must hold finite numbers")
    return found
