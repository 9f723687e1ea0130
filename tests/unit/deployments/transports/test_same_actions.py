"""One observation gives the same actions, bit for bit, whichever dialect carries it."""

from __future__ import annotations

import base64
import hashlib
import io
import time

import numpy as np
import orjson
from fastapi import Request
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from configs.policies import ChunkPolicy
from configs.serving import ServeConfig
from deployments.acting.act import Acting
from deployments.acting.observations import ImageLimits
from deployments.protocol import policy_pb2 as pb
from deployments.protocol.act import ActRequest, ChunkRequest, ChunkResult, ChunkShape, Observation
from deployments.protocol.msgpack_numpy import packed, unpacked
from deployments.transports import grpc_messages
from deployments.transports.http.act import json_numpy
from deployments.transports.http.observation import ActBody, question
from deployments.transports.http.requests import parse, typed
from deployments.transports.websocket import observations as openpi

POLICY = ChunkPolicy(name="robot", checkpoint="folder")
SHAPE = ChunkShape(cameras=2, resolution=(8, 8), state_dim=4, action_dim=5, horizon=3)
LIMITS = ImageLimits()
STATE = np.array([0.1, -2.5, 3e-5, 7.0], np.float32)
PROMPT = "lift the cup — slowly"
SEED = 7


class Hashing:
    """Gives actions that differ in every number when a single bit of the question does."""

    async def shape(self) -> ChunkShape:
        return SHAPE

    async def __call__(self, request: ChunkRequest) -> ChunkResult:
        seen = hashlib.blake2b(request.images.tobytes() + request.image_mask.tobytes() + request.state.tobytes())
        seen.update(f"{request.prompt}|{request.noise_seed}|{request.statistics}|{request.committed}".encode())
        drawn = np.random.default_rng(int.from_bytes(seen.digest()[:8], "big")).normal(size=(3, 5))
        return ChunkResult(request.request_id, drawn.astype(np.float32), weight_version=1)


def encoded(frame: NDArray[np.uint8], name: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(frame).save(out, name)
    return out.getvalue()


async def over_http(image: object, state: object = None) -> ActRequest:
    state = STATE.tolist() if state is None else state
    body = orjson.dumps({"image": image, "instruction": PROMPT, "proprio": state, "seed": SEED})
    asked = Request({"type": "http", "headers": [], "query_string": b"", "path": "/act", "method": "POST"})
    return await question(typed(ActBody, parse(body)), asked, POLICY, time.time() + 60)


def over_grpc(data: bytes, encoding: str) -> ActRequest:
    message = pb.ObservationRequest(
        images=[pb.CameraImage(image_data=data, encoding=encoding)],
        robot_state=pb.RobotState(state=STATE.tolist()),
        prompt=PROMPT,
        request_id="1",
        noise_seed=SEED,
    )
    sent = pb.ObservationRequest.FromString(message.SerializeToString())
    return grpc_messages.act_request(sent, "stream", time.time() + 60, LIMITS, 8)


def over_websocket(image: object) -> ActRequest:
    sent = {"observation/image": image, "observation/state": STATE, "prompt": PROMPT, "noise_seed": SEED}
    return openpi.act_request(unpacked(packed(sent)), POLICY.act, LIMITS, "1", "socket", time.time() + 60)


def by_hand(frame: NDArray[np.uint8]) -> ActRequest:
    return ActRequest("1", Observation((frame,), PROMPT, STATE), "handle", time.time() + 60, noise_seed=SEED)


async def actions(asked: ActRequest) -> bytes:
    acting = Acting(ServeConfig.model_construct(policies=[POLICY]), {}, {"robot": Hashing()})
    return (await acting.act("robot", asked)).actions.tobytes()


sides = st.integers(1, 9)
# With a bright corner: floats of a picture darker than 1.5 of 255 cannot be told from floats of 0..1.
frames = hnp.arrays(np.uint8, st.tuples(sides, sides, st.just(3))).map(
    lambda frame: np.where(np.arange(frame.size).reshape(frame.shape) == 0, 255, frame).astype(np.uint8)
)


@settings(max_examples=30)
@given(frame=frames)
async def test_a_frame_gives_the_same_actions_through_every_dialect(frame: NDArray[np.uint8]) -> None:
    png, units = encoded(frame, "PNG"), (frame / 255).astype(np.float32)
    text = base64.b64encode(png).decode()
    square = np.ascontiguousarray(frame[: min(frame.shape[:2]), : min(frame.shape[:2])])
    asked = {
        "nested list": await over_http(frame.tolist()),
        "nested list of floats": await over_http(units.tolist()),
        "json_numpy": await over_http(json_numpy(frame), json_numpy(STATE)),
        "json_numpy of big-endian floats": await over_http(json_numpy(units) | {
            "dtype": ">f4", "__numpy__": base64.b64encode(units.astype(">f4").tobytes()).decode(),
        }),
        "base64": await over_http(text),
        "data uri": await over_http(f"data:image/png;base64,{text}"),
        "gRPC png": over_grpc(png, "png"),
        "msgpack uint8": over_websocket(frame),
        "msgpack float32": over_websocket(units),
        "msgpack float64": over_websocket(frame / 255),
        "msgpack Fortran order": over_websocket(np.asfortranarray(frame)),
        "msgpack view": over_websocket(np.repeat(frame, 2, axis=0)[::2]),
        "msgpack png": over_websocket(png),
    }  # fmt: skip
    expected = await actions(by_hand(frame))
    for dialect, one in asked.items():
        assert (dialect, await actions(one)) == (dialect, expected)

    expected = await actions(by_hand(square))
    for raw in (square / 255, square.astype(np.float64)):
        assert await actions(over_grpc(raw.astype("<f4").tobytes(), "raw")) == expected


async def test_a_jpeg_gives_the_same_actions_through_every_dialect() -> None:
    frame = np.add.outer(np.arange(20) * 3, np.arange(30) * 2)[..., None].astype(np.uint8).repeat(3, axis=2)
    jpeg = encoded(frame, "JPEG")
    expected = await actions(by_hand(np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))))

    assert await actions(await over_http(base64.b64encode(jpeg).decode())) == expected
    assert await actions(over_grpc(jpeg, "jpeg")) == expected
    assert await actions(over_websocket(jpeg)) == expected
    assert await actions(by_hand(frame)) != expected
