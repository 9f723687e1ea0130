"""openpi's protocol over a real uvicorn server and real sockets, with a policy of the test's."""

from __future__ import annotations

import asyncio
import socket as sockets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import numpy as np
import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from deployments.errors import PolicyError
from deployments.protocol.act import ActRequest, ActResult
from deployments.protocol.msgpack_numpy import packed, unpacked
from tests.unit.deployments.transports.fakes import KEY, FakeActing, OneKey, answered, front
from tests.unit.deployments.transports.serving import openpi_server

IMAGE = np.full((4, 4, 3), 51, np.uint8)


def observation(state: float = 1.0, **extras: Any) -> dict[str, Any]:
    images = {"observation/image": IMAGE, "observation/wrist_image": IMAGE}
    return {**images, "observation/state": np.array([state], np.float32), "prompt": "fold", **extras}


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[tuple[ClientConnection, dict[str, Any]]]:
    """A connection as openpi's client opens it, and the server's metadata."""
    async with connect(url, compression=None, max_size=None, **options) as connection:
        yield connection, unpacked(await connection.recv())


async def asked(connection: ClientConnection, question: dict[str, Any]) -> dict[str, Any]:
    await connection.send(packed(question))
    answer = await connection.recv()
    assert isinstance(answer, bytes), answer
    found: dict[str, Any] = unpacked(answer)
    return found


async def sent_and_answered(connection: ClientConnection, frame: bytes) -> bytes | str:
    await connection.send(frame)
    return await connection.recv()


async def ending(connection: ClientConnection) -> tuple[dict[str, Any], int]:
    """The TEXT frame that tells a failure, and the code with which the connection is closed."""
    text = await connection.recv()
    assert isinstance(text, str)
    with pytest.raises(ConnectionClosed):
        await connection.recv()
    assert connection.close_code is not None
    return orjson.loads(text), connection.close_code


async def test_the_first_frame_says_what_is_openpi_server() -> None:
    async with openpi_server(front()) as url, opened(url) as (_, metadata):
        assert metadata["name"] == "arm"
        assert (metadata["horizon"], metadata["action_dim"], metadata["resolution"]) == (2, 3, [8, 8])
        assert metadata["observation_keys"]["cameras"] == ["observation/image", "observation/wrist_image"]


async def test_an_observation_is_answered_by_actions_and_the_servers_timing() -> None:
    async with openpi_server(front()) as url, opened(url) as (connection, _):
        first = await asked(connection, observation(request_id="7"))
        second = await asked(connection, observation())

    assert first["actions"].tolist() == [[51, 51, 1], [52, 52, 2]]
    assert first["actions"].dtype == np.float32
    assert (first["request_id"], first["weight_version"], first["interventions"]) == ("7", 7, ["clipped"])
    assert first["server_timing"]["infer_ms"] == 12.5
    assert "prev_total_ms" not in first["server_timing"]
    assert second["server_timing"]["prev_total_ms"] > 0


async def test_an_observation_as_openpis_own_packer_writes_it_is_understood() -> None:
    def described(item: Any) -> Any:
        return {b"__ndarray__": True, b"data": item.tobytes(), b"dtype": item.dtype.str, b"shape": item.shape}

    async with openpi_server(front()) as url, opened(url) as (connection, _):
        await connection.send(msgpack.Packer(default=described).pack(observation()))
        answer = msgpack.unpackb(await connection.recv())

    array = answer["actions"]
    assert array[b"__ndarray__"] is True
    assert np.frombuffer(array[b"data"], array[b"dtype"]).reshape(array[b"shape"]).tolist()[0] == [51, 51, 1]


async def test_each_connection_is_a_session_that_is_forgotten_with_it() -> None:
    acting = FakeActing()
    async with openpi_server(front(acting)) as url:
        for options in ({}, {}, {"additional_headers": {"x-session-id": "robot 4"}}):
            async with opened(url, **options) as (connection, _):
                await asked(connection, observation())

    sessions = [request.session_id for request in acting.asked]
    assert len(set(sessions)) == 3
    assert sessions[2] == "robot 4"
    assert acting.forgotten == sessions[:2]


@pytest.mark.parametrize(
    ("kind", "code"), [("engine_failed", 1011), ("invalid_request", 1011), ("too_large", 1009), ("overloaded", 1013)]
)
async def test_a_failure_is_a_text_frame_and_the_end(kind: str, code: int) -> None:
    async def fails(request: ActRequest) -> ActResult:
        raise PolicyError(kind, "what was wrong")

    async with openpi_server(front(FakeActing(fails))) as url, opened(url) as (connection, _):
        await connection.send(packed(observation()))
        body, closed_with = await ending(connection)

    assert (body["kind"], body["message"], closed_with) == (kind, "what was wrong", code)


async def test_a_defect_tells_no_traceback() -> None:
    async def fails(request: ActRequest) -> ActResult:
        raise RuntimeError("secret path /home/robot")

    async with openpi_server(front(FakeActing(fails))) as url, opened(url) as (connection, _):
        await connection.send(packed(observation()))
        body, code = await ending(connection)

    assert (body["kind"], code) == ("internal", 1011)
    assert "secret" not in str(body)


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (b"\x91" * 100_000, "nested deeper"),
        (b"\xdd\xff\xff\xff\xff", "ends in the middle"),
        (packed({"a": 1})[:-1], "ends in the middle"),
        (packed([1, 2]), "a dict, not list"),
        ("text", "binary frame"),
        (packed({"prompt": "fold"}), "none of the cameras"),
    ],
)
async def test_what_is_no_observation_is_refused_by_name(frame: bytes | str, complaint: str) -> None:
    async with openpi_server(front()) as url, opened(url) as (connection, _):
        await connection.send(frame)
        body, code = await ending(connection)

    assert body["kind"] == "invalid_request"
    assert complaint in body["message"]
    assert code == 1011


async def test_a_frame_of_200_mb_is_closed_with_1009() -> None:
    async with openpi_server(front()) as url, opened(url) as (connection, _):
        with pytest.raises(ConnectionClosed):
            await sent_and_answered(connection, b"\0" * 200_000_000)

    assert connection.close_code == 1009


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Api-Key wrong"}, {"Authorization": f"Basic {KEY}"}])
async def test_without_the_key_no_connection_is_opened(headers: dict[str, str]) -> None:
    async with openpi_server(front(keys=OneKey())) as url:
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, additional_headers=headers)

    assert refused.value.response.status_code == 401


@pytest.mark.parametrize("scheme", ["Api-Key", "Bearer"])
async def test_the_key_opens_the_connection(scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {KEY}"}
    async with openpi_server(front(keys=OneKey())) as url, opened(url, additional_headers=headers) as (connection, _):
        assert "actions" in await asked(connection, observation())


async def test_a_policy_is_chosen_by_path_or_query() -> None:
    two = [{"kind": "chunks", "name": name, "checkpoint": "made-up"} for name in ("left", "right")]
    acting = FakeActing()
    async with openpi_server(front(acting, policies=two)) as url:
        for path in ("/policies/right", "/?policy=left"):
            async with opened(url + path) as (connection, _):
                await asked(connection, observation())
        async with connect(url) as connection:
            body, _ = await ending(connection)

    assert acting.policies == ["right", "left"]
    assert body["kind"] == "not_found"


class Held:
    """Answers observations of state 0 when told to, and all others at once."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, request: ActRequest) -> ActResult:
        assert request.observation.state is not None
        if request.observation.state[0] == 0:
            await self.go.wait()
        return await answered(request)


async def test_one_long_inference_delays_neither_another_client_nor_a_ping() -> None:
    held = Held()
    acting = FakeActing(held)
    async with openpi_server(front(acting)) as url, opened(url) as (slow, _):
        await slow.send(packed(observation(0.0)))
        await acting.begun.wait()

        async with opened(url) as (quick, _):
            assert (await asked(quick, observation(1.0)))["actions"][0][2] == 1
        await (await slow.ping())
        held.go.set()

        assert unpacked(await slow.recv())["actions"][0][2] == 0  # type: ignore[arg-type]


async def test_answers_keep_the_order_of_observations_that_were_sent_ahead() -> None:
    held = Held()
    acting = FakeActing(held)
    async with openpi_server(front(acting)) as url, opened(url) as (connection, _):
        for state in (0.0, 1.0, 2.0):
            await connection.send(packed(observation(state, request_id=str(state))))
        await acting.until(lambda: len(acting.asked) == 3)
        held.go.set()

        answers = [unpacked(await connection.recv()) for _ in range(3)]  # type: ignore[arg-type]

    assert [answer["request_id"] for answer in answers] == ["0.0", "1.0", "2.0"]


async def test_a_client_that_leaves_ends_the_inference() -> None:
    acting = FakeActing(Held())
    async with openpi_server(front(acting)) as url:
        async with opened(url) as (connection, _):
            await connection.send(packed(observation(0.0)))
            await acting.begun.wait()

        async with asyncio.timeout(10):
            await acting.cancelled.wait()


async def test_256_clients_at_a_time_are_answered() -> None:
    async with openpi_server(front()) as url:

        async def one(number: int) -> float:
            async with opened(url, open_timeout=60) as (connection, _):
                connected.release()
                await all_connected.wait()
                return float((await asked(connection, observation(number)))["actions"][0][2])

        connected, all_connected = asyncio.Semaphore(0), asyncio.Event()
        clients = [asyncio.create_task(one(number)) for number in range(256)]
        for _ in range(256):
            await connected.acquire()
        all_connected.set()

        assert await asyncio.gather(*clients) == list(range(256))


async def test_a_client_that_does_not_read_its_answers_is_let_go() -> None:
    async def large(request: ActRequest) -> ActResult:
        return ActResult(request.request_id, np.zeros((500_000, 2), np.float32), 1)

    acting = FakeActing(large)
    async with openpi_server(front(acting, websocket={"send_deadline_s": 0.2})) as url:
        _, writer = await raw_connection(url)
        frame = masked(packed(observation()))
        for _ in range(40):
            writer.write(frame)
        async with asyncio.timeout(20):
            await acting.until(lambda: bool(acting.forgotten))
        writer.close()


async def raw_connection(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that shakes hands, and then reads nothing more."""
    host, _, port = url.removeprefix("ws://").partition(":")
    connection = sockets.create_connection((host, int(port)))
    connection.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    connection.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=connection, limit=1024)
    writer.write(
        f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def masked(payload: bytes) -> bytes:
    """A binary frame of a client, masked with zeros."""
    return b"\x82\xfe" + len(payload).to_bytes(2, "big") + b"\0\0\0\0" + payload
