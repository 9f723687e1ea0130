"""Frames between a rollout and the process of its environment: JSON, and the raw bytes of a picture. Never pickle.

    4 bytes   length of the JSON, big-endian
    4 bytes   length of the picture, 0 for none
    JSON      UTF-8; of a picture it holds the shape
    picture   uint8, row by row

The process of the environment speaks first: {"protocol": 1, "python": "3.11.7"}. Then every request gets one answer:

    {"call": "make", "name": "tictactoe", "settings": {}}     {"value": {spec}}
    {"call": "reset", "seed": 7}                              {"value": {observation}}
    {"call": "step", "action": "<move>5</move>"}              {"value": {result}}
    {"call": "expert_action", "rng", "noise", "illegal_noise"}  {"value": {"action", "rng"}}
    {"call": "render"}                                        {"value": null or {}}
    {"call": "close"}                                         {"value": null}

or, for what the environment raises, {"error": {"kind", "type", "message", "traceback"}}. Standard library and numpy
only: this module also runs in the environment's own Python.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import astuple, fields
from typing import Any

import numpy as np

from envs.base import EnvSpec, EnvUsageError, EpisodeOver, Observation, RewardPart, SettingError, StepResult

PROTOCOL = 1
LENGTHS = struct.Struct(">II")
MOST_BYTES = 1 << 28  # of either part: a length beyond it is no frame of ours
# What crosses as itself; every other exception arrives as EnvRaised, with its name in the message.
ERRORS: dict[str, type[Exception]] = {
    "setting": SettingError,
    "usage": EnvUsageError,
    "over": EpisodeOver,
}


class EnvRaised(RuntimeError):
    """An exception that the environment raised in its own process; the message begins with its type there."""


class EnvLost(RuntimeError):
    """The process of the environment ended, or what it sent is no frame; the message says how."""


class Channel:
    """One end of a connection, for one call at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def send(self, document: Mapping[str, Any], image: np.ndarray | None = None) -> None:
        """Raises EnvLost when nobody is at the other end."""
        picture = b"" if image is None else np.ascontiguousarray(image).tobytes()
        head = json.dumps(document).encode()  # ASCII: a lone surrogate arrives as it was sent
        try:
            self._socket.sendall(LENGTHS.pack(len(head), len(picture)) + head + picture)
        except OSError as error:
            raise EnvLost(f"the connection is closed ({error})") from error

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """(the document, the bytes of its picture). Raises EnvLost at the end of the connection."""
        head, picture = LENGTHS.unpack(self._exactly(LENGTHS.size))
        if max(head, picture) > MOST_BYTES:
            raise EnvLost(f"a frame of {max(head, picture)} bytes; at most {MOST_BYTES} are allowed")
        try:
            document = json.loads(self._exactly(head))
        except ValueError as error:
            raise EnvLost(f"a frame that is not JSON ({error})") from error
        if not isinstance(document, dict):
            raise EnvLost(f"a frame that is no JSON object, but {document!r:.80}")
        return document, self._exactly(picture)

    def shut(self) -> None:
        """Ends the connection for both ends, and with it a `receive` that another thread waits in."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()

    def _exactly(self, size: int) -> bytes:
        data = bytearray(size)
        view, filled = memoryview(data), 0
        while filled < size:
            try:
                got = self._socket.recv_into(view[filled:])
            except OSError as error:
                raise EnvLost(f"the connection is closed ({error})") from error
            if not got:
                raise EnvLost("the connection was closed")
            filled += got
        return bytes(data)


def plain(value: Any) -> Any:
    """The value as JSON has it: tuples as lists, numpy's numbers and arrays as numbers and lists, keys as text. What
    JSON cannot hold becomes its repr.

    >>> plain({1: (True, np.float32(0.5)), "kind": {3}})
    {'1': [True, 0.5], 'kind': '{3}'}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if hasattr(type(value), "__float__"):  # a Fraction, a tensor with one number
        with contextlib.suppress(Exception):
            return float(value)
    return repr(value)


def written_observation(observation: Any) -> tuple[dict[str, Any], np.ndarray | None]:
    """(document, picture). Raises TypeError for what is no Observation, ValueError for a picture that is not HxWx3
    uint8. Text and tools stay as they are: what is wrong with them is seen as in the rollout's own process."""
    if not isinstance(observation, Observation):
        raise TypeError(f"an observation must be an Observation with a text, got {observation!r:.80}")
    image = observation.image
    tools = [dict(tool) for tool in observation.tools]
    document = {"text": observation.text, "note": observation.note, "tools": tools, "earlier": observation.earlier}
    return document | {"image": written_shape(image)}, image


def read_observation(document: Mapping[str, Any], picture: bytes) -> Observation:
    return Observation(
        text=document["text"],
        image=read_image(document["image"], picture),
        note=document["note"],
        tools=tuple(document["tools"]),
        earlier=tuple((role, text) for role, text in document["earlier"]),
    )


def written_shape(image: Any) -> list[int] | None:
    if image is None:
        return None
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        form = f"{list(image.shape)} {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"an image is a numpy array [height, width, 3] of uint8, got {form}")
    return list(image.shape)


def read_image(shape: list[int] | None, picture: bytes) -> np.ndarray | None:
    return None if shape is None else np.frombuffer(picture, np.uint8).reshape(shape).copy()


def written_result(result: Any) -> tuple[dict[str, Any], np.ndarray | None]:
    """(document, picture). Raises TypeError for what is no StepResult."""
    if not isinstance(result, StepResult):
        raise TypeError(f"step must return a StepResult, not {type(result).__name__}")
    observation, image = written_observation(result.observation)
    document = {"observation": observation, "reward": plain(result.reward), "info": plain(result.info)}
    flags = {name: bool(getattr(result, name)) for name in ("terminated", "truncated", "success")}
    return document | flags, image


def read_result(document: Mapping[str, Any], picture: bytes) -> StepResult:
    return StepResult(**{**document, "observation": read_observation(document["observation"], picture)})


def written_spec(spec: EnvSpec) -> dict[str, Any]:
    parts = {name: plain(astuple(part)) for name, part in spec.reward_parts.items()}
    return {field.name: plain(getattr(spec, field.name)) for field in fields(EnvSpec)} | {"reward_parts": parts}


def read_spec(document: Mapping[str, Any]) -> EnvSpec:
    parts = {name: RewardPart(*values) for name, values in document["reward_parts"].items()}
    return EnvSpec(**{**document, "reward_parts": parts})


def written_error(error: Exception, trace: str) -> dict[str, Any]:
    kind = next((kind for kind, cls in ERRORS.items() if isinstance(error, cls)), "other")
    return {"error": {"kind": kind, "type": type(error).__name__, "message": str(error), "traceback": trace}}


def read_error(document: Mapping[str, Any]) -> Exception:
    """The exception to raise here, with the traceback from there as a note."""
    cls = ERRORS.get(document["kind"])
    error = cls(document["message"]) if cls else EnvRaised(f"{document['type']}: {document['message']}")
    error.add_note(f"in the environment's process:\n{document['traceback']}")
    return error
