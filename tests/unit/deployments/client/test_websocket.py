"""The WebSocket clients against a real server of ours, and against one that speaks as openpi's does."""

from __future__ import annotations

import asyncio
import socket as sockets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI, WebSocket

from deployments.client.observing import Seen
from deployments.client.websocket import AsyncSocketClient, SocketClient
from deployments.errors import PolicyError
from deployments.protocol.act import ActRequest, ActResult, Committed
from deployments.protocol.msgpack_numpy import packed, unpacked
from tests.unit.deployments.transports.fakes import KEY, FakeActing, OneKey, answered, front
from tests.unit.deployments.transports.serving import http_server, openpi_server

FRAME = np.full((6, 8, 3), 51, np.uint8)


def seen(**changes: Any) -> Seen:
    return Seen(images=[FRAME, None], instruction="fold", state=[1.0], **changes)


async def blocking(function: Any, *args: Any) -> Any:
    return await asyncio.to_thread(function, *args)


@asynccontextmanager
async def opened(client: SocketClient) -> AsyncIterator[SocketClient]:
    """Closed in a thread: the server that has to answer the closing runs in this loop."""
    try:
        yield client
    finally:
        await blocking(client.close)


async def test_a_question_is_answered_and_carries_all_that_was_seen() -> None:
    acting = FakeActing()
    committed = Committed(np.ones((3, 2), np.float32), 1)
    async with openpi_server(front(acting)) as url, opened(SocketClient(url)) as client:
        question = seen(committed=committed, noise_seed=4)
        told = await blocking(client.act, question)

    assert told.actions.tolist() == [[51, 1], [52, 2]]
    assert (told.request_id, told.weight_version, told.interventions) == (question.request_id, 7, ("clipped",))
    asked = acting.asked[0]
    assert asked.observation.taken_unix_s == pytest.approx(question.taken_unix_s, abs=1e-3)
    assert asked.committed is not None
    assert (asked.committed.actions.tolist(), asked.committed.delay, asked.noise_seed) == ([[1, 1]] * 3, 1, 4)


async def test_openpis_own_call_takes_and_gives_dicts() -> None:
    async with openpi_server(front()) as url, opened(SocketClient(url)) as client:
        observation = {"observation/image": FRAME, "observation/state": np.ones(1), "prompt": "fold"}
        answer = await blocking(client.infer, observation)

    assert answer["actions"].shape == (2, 2)


async def test_a_failure_has_the_servers_kind_and_the_next_question_a_new_connection() -> None:
    async def only_ones(request: ActRequest) -> ActResult:
        if request.observation.state is None or request.observation.state[0] != 1:
            raise PolicyError("invalid_request", "not a one")
        return await answered(request)

    async with openpi_server(front(FakeActing(only_ones))) as url, opened(SocketClient(url)) as client:
        with pytest.raises(PolicyError, match="not a one") as error:
            await blocking(client.act, Seen(images=[FRAME], state=[2.0]))
        assert (await blocking(client.act, seen())).actions.shape == (2, 2)

    assert error.value.kind == "invalid_request"


async def test_a_passing_failure_is_tried_again_with_the_same_id() -> None:
    acting = FakeActing()

    async def second_time(request: ActRequest) -> ActResult:
        if len(acting.asked) == 1:
            raise PolicyError("unavailable", "not yet")
        return await answered(request)

    acting.answer = second_time
    async with openpi_server(front(acting)) as url, opened(SocketClient(url)) as client:
        told = await blocking(client.act, seen())

    assert told.actions.shape == (2, 2)
    assert len({request.request_id for request in acting.asked}) == 1


async def test_a_late_answer_is_never_taken_for_the_next_questions() -> None:
    late = asyncio.Event()

    async def late_for_one(request: ActRequest) -> ActResult:
        assert request.observation.state is not None
        if request.observation.state[0] == 1:
            await late.wait()
        return await answered(request)

    async with (
        openpi_server(front(FakeActing(late_for_one))) as url,
        opened(SocketClient(url, timeout_s=0.5, retries=0)) as client,
    ):
        with pytest.raises(PolicyError) as error:
            await blocking(client.act, seen())
        late.set()
        told = await blocking(client.act, Seen(images=[FRAME], state=[2.0]))

    assert error.value.kind == "deadline_exceeded"
    assert told.actions[0][-1] == 2


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with sockets.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, and not listening
        with (
            SocketClient(f"ws://127.0.0.1:{free.getsockname()[1]}", retries=1) as client,
            pytest.raises(PolicyError) as error,
        ):
            await blocking(client.act, seen())

    assert error.value.kind == "unavailable"


async def test_the_key_is_shown() -> None:
    async with (
        openpi_server(front(keys=OneKey())) as url,
        opened(SocketClient(url, key=KEY)) as client,
    ):
        assert (await blocking(client.act, seen())).actions.shape == (2, 2)
        with SocketClient(url, key="wrong") as client, pytest.raises(PolicyError) as error:
            await blocking(client.act, seen())

    assert error.value.kind == "unauthenticated"


async def test_more_frames_than_the_policy_has_cameras_are_not_dropped_in_silence() -> None:
    async with openpi_server(front()) as url:
        with SocketClient(url) as client, pytest.raises(PolicyError, match="3 frames"):
            await blocking(client.act, Seen(images=[FRAME] * 3, state=[1.0]))


async def test_the_asyncio_client_answers_many_at_a_time() -> None:
    async with openpi_server(front()) as url:

        async def one(number: int) -> float:
            async with AsyncSocketClient(url) as client:
                return float((await client.act(Seen(images=[FRAME], state=[float(number)]))).actions[0][-1])

        assert await asyncio.gather(*(one(number) for number in range(8))) == list(range(8))


async def test_a_cancelled_question_ends_its_inference() -> None:
    async def never(request: ActRequest) -> ActResult:
        await asyncio.Event().wait()
        raise AssertionError

    acting = FakeActing(never)
    async with openpi_server(front(acting)) as url, AsyncSocketClient(url) as client:
        asking = asyncio.create_task(client.act(seen()))
        await acting.begun.wait()

        asking.cancel()

        async with asyncio.timeout(10):
            await acting.cancelled.wait()
        await asyncio.gather(asking, return_exceptions=True)


@asynccontextmanager
async def openpis_own(answer: Any) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """A server that knows nothing of ours, and what it was asked."""
    app, asked = FastAPI(), []

    @app.websocket("/")
    async def root(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_bytes(packed({"reset_pose": [0.0]}))
        asked.append(unpacked(await socket.receive_bytes()))
        if isinstance(answer, str):
            await socket.send_text(answer)
            await socket.close(1011)
        else:
            await socket.send_bytes(packed(answer))

    async with http_server(app) as address:
        yield f"ws://{address}", asked


async def test_an_openpi_server_is_asked_with_arrays_under_its_own_names() -> None:
    actions = np.arange(4, dtype=np.float64).reshape(2, 2)
    async with (
        openpis_own({"actions": actions, "server_timing": {"infer_ms": 3.0}}) as (url, asked),
        opened(SocketClient(url)) as client,
    ):
        told = await blocking(client.act, seen())

    assert told.actions.tolist() == actions.tolist()
    assert told.infer_ms == 3.0
    assert np.array_equal(asked[0]["observation/image"], FRAME)
    assert asked[0]["observation/state"].tolist() == [1.0]


async def test_an_openpi_servers_traceback_becomes_its_last_line() -> None:
    async with openpis_own("Traceback (most recent call last):\n  File ...\nKeyError: 'state'") as (url, _):
        with SocketClient(url) as client, pytest.raises(PolicyError, match="KeyError: 'state'") as error:
            await blocking(client.act, seen())

    assert error.value.kind == "internal"
