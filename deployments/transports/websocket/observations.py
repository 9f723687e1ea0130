"""From openpi's observations, dicts under names of the robot's choice, to ours. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from configs.acting import ActConfig, OpenpiConfig
from deployments.acting.observations import ImageLimits, frame_from_array, frame_from_encoded
from deployments.errors import PolicyError
from deployments.protocol.act import ActRequest, Committed, Frame, Observation, Vector

MOST_NUMBERS = 4096  # of a state
MOST_ACTIONS = 4096  # of a prefix
LONGEST_PROMPT = 65_536  # characters; the policy's own bound is lower


def act_request(
    observation: Mapping[str, Any],
    act: ActConfig,
    limits: ImageLimits,
    request_id: str,
    session_id: str,
    deadline_unix_s: float,
) -> ActRequest:
    """The question in an observation; its images are converted here, so call it in a thread. Raises PolicyError.

    Beside what `act.openpi` names, these are understood, all optional: `prefix_action` [P, D] with `delay` (real-time
    chunking), `noise_seed`, `timestamp_ns` (when it was taken, nanoseconds since 1970), `request_id`.
    """
    names = act.openpi
    images = _images(observation, names)
    if len(images) > act.max_images:
        raise PolicyError("too_large", f"{len(images)} images; the policy takes at most {act.max_images}")
    timestamp_ns = _whole(observation, "timestamp_ns", 0)
    return ActRequest(
        request_id=request_id,
        observation=Observation(
            images=tuple(None if image is None else _frame(name, image, limits) for name, image in images.items()),
            instruction=_prompt(_found(observation, names.prompt)),
            state=_state(observation, names.state),
            taken_unix_s=timestamp_ns / 1e9 if timestamp_ns > 0 else None,
        ),
        session_id=session_id,
        deadline_unix_s=deadline_unix_s,
        committed=_committed(observation),
        noise_seed=None if observation.get("noise_seed") is None else _whole(observation, "noise_seed", 0),
    )


def _images(observation: Mapping[str, Any], names: OpenpiConfig) -> dict[str, Any]:
    """Name -> image of each camera, in the policy's order, up to the last one that is there: a policy may have fewer
    cameras than there are names. Raises PolicyError where there is none at all: a policy that is blind because of a
    misspelt name still moves the robot."""
    images = {name: _found(observation, name) for name in names.cameras}
    if any(image is not None for image in images.values()):
        while next(reversed(images.values())) is None:
            images.popitem()
        return images
    nested = observation.get("images")
    if isinstance(nested, Mapping) and nested:
        return {str(name): image for name, image in nested.items()}
    raise PolicyError(
        "invalid_request",
        f"the observation holds none of the cameras {', '.join(names.cameras)}, nor a dict `images`; it holds "
        f"{', '.join(map(str, list(observation)[:20])) or 'nothing'}",
    )


def _found(observation: Mapping[str, Any], name: str) -> Any:
    """The entry of that name, or along its slashes; None where there is none."""
    if name in observation:
        return observation[name]
    inner: Any = observation
    for part in name.split("/"):
        if not isinstance(inner, Mapping):
            return None
        inner = inner.get(part, inner.get(part.encode()))
    return inner


def _frame(name: str, image: Any, limits: ImageLimits) -> Frame:
    try:
        if isinstance(image, bytes):
            return frame_from_encoded(image, limits)
        if isinstance(image, np.ndarray):
            return frame_from_array(image, limits)
    except PolicyError as error:
        raise PolicyError(error.kind, f"{name}: {error.message}") from error
    raise PolicyError("invalid_request", f"{name}: an image is an array or an encoded file, not {type(image).__name__}")


def _state(observation: Mapping[str, Any], names: list[str]) -> Vector | None:
    """All parts joined; None where there is no state at all. Raises PolicyError where one part is missing."""
    parts = {name: _found(observation, name) for name in names}
    if all(value is None for value in parts.values()):
        parts = {"state": observation.get("state")}
    missing = [name for name, value in parts.items() if value is None]
    if missing == list(parts):
        return None
    if missing:
        raise PolicyError("invalid_request", f"the observation holds a part of the state, but not {', '.join(missing)}")
    return np.concatenate([_numbers(name, value).reshape(-1) for name, value in parts.items()])


def _prompt(prompt: Any) -> str:
    if prompt is None:
        return ""
    if not isinstance(prompt, str):
        raise PolicyError("invalid_request", f"the prompt must be text, not {type(prompt).__name__}")
    if len(prompt) > LONGEST_PROMPT:
        raise PolicyError("too_large", f"a prompt of {len(prompt)} characters; the limit is {LONGEST_PROMPT}")
    return prompt


def _committed(observation: Mapping[str, Any]) -> Committed | None:
    given, delay = observation.get("prefix_action"), _whole(observation, "delay", 0)
    rows = (
        np.zeros((0, 0), np.float32) if given is None else _numbers("prefix_action", given, MOST_ACTIONS * MOST_NUMBERS)
    )
    if given is not None and rows.ndim != 2:
        raise PolicyError("invalid_request", f"prefix_action: must be [actions, numbers], got shape {list(rows.shape)}")
    if not 0 <= delay <= len(rows):
        raise PolicyError(
            "invalid_request", f"delay {delay}: must be 0 or more, and at most the {len(rows)} rows of prefix_action"
        )
    return Committed(rows, delay) if rows.size else None


def _numbers(name: str, value: Any, most: int = MOST_NUMBERS) -> Vector:
    try:
        found = np.asarray(value, np.float32)
    except (TypeError, ValueError) as error:
        raise PolicyError("invalid_request", f"{name}: must be numbers: {error}") from error
    if found.size > most:
        raise PolicyError("too_large", f"{name}: {found.size} numbers; the limit is {most}")
    if not np.isfinite(found).all():
        raise PolicyError("invalid_request", f"{name}: must hold finite numbers")
    return found


def _whole(observation: Mapping[str, Any], name: str, default: int) -> int:
    value = observation.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise PolicyError("invalid_request", f"{name}: must be a whole number, not {type(value).__name__}")
    return int(value)
