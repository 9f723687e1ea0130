"""openpi's WebSocket protocol over the real application, asked as openpi's published client asks."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import msgpack
import numpy as np
import orjson
import pytest
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from deployments.client.observing import Seen
from deployments.client.websocket import SocketClient
from deployments.protocol.msgpack_numpy import packed, unpacked
from tests.integration.contracts.robots import RobotServer

pytestmark = pytest.mark.integration

FRAME = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
OBSERVATION = {
    "observation/image": FRAME,
    "observation/wrist_image": FRAME,
    "observation/state": np.array([0.1, 0.2, 0.3]),
    "prompt": "fold the towel",
}


class StockClient:
    """What openpi's client does, with its own packing of arrays."""

    def __init__(self, url: str) -> None:
        self.connection: ClientConnection = connect(url, compression=None, max_size=None)
        self.metadata = self._unpacked(self.connection.recv())

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        self.connection.send(msgpack.packb(observation, default=self._described))
        answer = self.connection.recv()
        if isinstance(answer, str):
            raise RuntimeError(f"Error in inference server:\n{answer}")
        return self._unpacked(answer)

    def _described(self, value: Any) -> dict[bytes, Any]:
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}

    def _unpacked(self, data: Any) -> dict[str, Any]:
        found: dict[str, Any] = msgpack.unpackb(data, object_hook=self._restored)
        return found

    def _restored(self, value: dict[Any, Any]) -> Any:
        if b"__ndarray__" in value:
            return np.ndarray(buffer=value[b"data"], dtype=np.dtype(value[b"dtype"]), shape=value[b"shape"])
        return value


@pytest.fixture
def url(robots: RobotServer) -> str:
    return f"ws://{robots.http}"


def test_the_stock_client_is_answered_at_the_root_path(url: str) -> None:
    client = StockClient(url)

    first, second = client.infer(OBSERVATION), client.infer(OBSERVATION)
    client.connection.close()

    assert (client.metadata["name"], client.metadata["horizon"], client.metadata["action_dim"]) == ("robot", 10, 7)
    assert first["actions"].shape == (10, 7)
    assert np.isfinite(first["actions"]).all()
    assert first["server_timing"]["infer_ms"] > 0
    assert second["server_timing"]["prev_total_ms"] > 0


def test_plain_http_at_the_root_path_stays_json(robots: RobotServer) -> None:
    assert httpx.get(f"http://{robots.http}/").json()["name"] == "rayward"
    assert httpx.get(f"http://{robots.http}/healthz").text == "OK"


def test_a_seeded_observation_gives_bit_equal_actions_from_uint8_float_and_big_endian_frames(url: str) -> None:
    frames = [FRAME, FRAME.astype(np.float32) / np.float32(255), FRAME.astype(">f4"), np.asfortranarray(FRAME)]
    client = StockClient(url)

    answers = [client.infer({**OBSERVATION, "observation/image": frame, "noise_seed": 3}) for frame in frames]
    client.connection.close()

    assert all(np.array_equal(answer["actions"], answers[0]["actions"]) for answer in answers)


@pytest.mark.parametrize(
    ("observation", "complaint"),
    [
        ({"prompt": "fold"}, "none of the cameras"),
        ({**OBSERVATION, "observation/image": FRAME.transpose(2, 0, 1)}, "channels come last"),
        ({**OBSERVATION, "observation/state": np.array([np.nan])}, "finite"),
    ],
)
def test_a_failure_is_a_text_frame_with_kind_and_message_and_then_1011(
    url: str, observation: dict[str, Any], complaint: str
) -> None:
    client = StockClient(url)

    with pytest.raises(RuntimeError) as error:
        client.infer(observation)
    with pytest.raises(ConnectionClosed):
        client.connection.recv()

    body = orjson.loads(str(error.value).partition("\n")[2])
    assert body["kind"] == "invalid_request"
    assert complaint in body["message"]
    assert client.connection.close_code == 1011


def test_bombs_end_their_own_connection_and_nobody_elses(url: str) -> None:
    bystander = StockClient(url)
    for bomb in (b"\x91" * 1_000_000, b"\xdd\xff\xff\xff\xff", packed([[None] * 1000] * 100)):
        with connect(url, max_size=None) as connection:
            connection.recv()
            connection.send(bomb)
            assert orjson.loads(connection.recv())["kind"] == "invalid_request"

    assert bystander.infer(OBSERVATION)["actions"].shape == (10, 7)
    bystander.connection.close()


def test_a_frame_of_200_mb_is_closed_with_1009(url: str) -> None:
    with connect(url, max_size=None) as connection:
        connection.recv()
        with pytest.raises(ConnectionClosed):
            send_and_receive(connection, bytes(200_000_000))

    assert connection.close_code == 1009


def send_and_receive(connection: ClientConnection, frame: bytes) -> Any:
    connection.send(frame)
    return connection.recv(timeout=60)


def test_our_client_speaks_to_it(url: str) -> None:
    with SocketClient(url) as client:
        told = client.act(Seen(images=[FRAME, FRAME], instruction="fold", state=[0.1]))

    assert told.actions.shape == (10, 7)


async def test_32_clients_are_answered_at_a_time(url: str) -> None:
    async def one() -> tuple[int, ...]:
        async with connect_async(url, compression=None, max_size=None) as connection:
            await connection.recv()
            await connection.send(packed(OBSERVATION))
            return tuple(unpacked(await connection.recv())["actions"].shape)  # type: ignore[arg-type]

    answers = await asyncio.gather(*(one() for _ in range(32)))

    assert answers == [(10, 7)] * 32
