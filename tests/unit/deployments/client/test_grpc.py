"""The gRPC clients against a real server of ours."""

from __future__ import annotations

import asyncio
import socket as sockets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest

from deployments.client.grpc import AsyncRobotClient, RobotClient
from deployments.client.observing import Seen, Told
from deployments.errors import PolicyError
from deployments.protocol.act import ActRequest, ActResult, Committed
from tests.unit.deployments.transports.fakes import KEY, FakeActing, OneKey, answered, front
from tests.unit.deployments.transports.serving import Methods, grpc_server

FRAME = np.full((6, 8, 3), 51, np.uint8)


def seen(state: float = 1.0, **changes: Any) -> Seen:
    return Seen(images=[FRAME, None], instruction="fold", state=[state], **changes)


async def test_a_question_is_answered_and_carries_all_that_was_seen() -> None:
    acting = FakeActing()
    committed = Committed(np.ones((3, 2), np.float32), 1)
    async with grpc_server(Methods(front(acting))) as address:
        with RobotClient(address, session_id="robot 4") as client:
            question = seen(committed=committed, noise_seed=4)
            told = await asyncio.to_thread(client.act, question)

    assert told.actions.tolist() == [[51, 0, 1], [52, 1, 2]]
    assert (told.request_id, told.weight_version, told.interventions) == (question.request_id, 7, ("clipped",))
    asked = acting.asked[0]
    assert (asked.session_id, asked.observation.instruction, asked.noise_seed) == ("robot 4", "fold", 4)
    assert asked.committed is not None
    assert (asked.committed.actions.tolist(), asked.committed.delay) == ([[1, 1]] * 3, 1)


async def test_png_brings_every_pixel_unchanged() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    acting = FakeActing()
    async with grpc_server(Methods(front(acting))) as address:
        with RobotClient(address, encoding="png") as client:
            await asyncio.to_thread(client.act, Seen(images=[noise], state=[1.0]))

    (arrived,) = acting.asked[0].observation.images
    assert arrived is not None
    assert np.array_equal(arrived, noise)


async def test_a_passing_failure_is_tried_again_with_the_same_id() -> None:
    acting = FakeActing()

    async def second_time(request: ActRequest) -> ActResult:
        if len(acting.asked) == 1:
            raise PolicyError("overloaded", "not yet", retry_after_s=0.01)
        return await answered(request)

    acting.answer = second_time
    async with grpc_server(Methods(front(acting))) as address:
        with RobotClient(address) as client:
            await asyncio.to_thread(client.act, seen())

    assert len(acting.asked) == 2
    assert len({request.request_id for request in acting.asked}) == 1


async def test_a_failure_has_the_servers_own_kind_and_words() -> None:
    async def fails(request: ActRequest) -> ActResult:
        raise PolicyError("too_large", "too many pixels")  # gRPC's code alone would say invalid_request

    async with grpc_server(Methods(front(FakeActing(fails)))) as address:
        with RobotClient(address) as client, pytest.raises(PolicyError, match="too many pixels") as error:
            await asyncio.to_thread(client.act, seen())

    assert error.value.kind == "too_large"


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with sockets.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, and not listening
        with (
            RobotClient(f"127.0.0.1:{free.getsockname()[1]}", retries=1) as client,
            pytest.raises(PolicyError) as error,
        ):
            await asyncio.to_thread(client.act, seen())

    assert error.value.kind == "unavailable"


async def test_a_question_that_takes_too_long_is_given_up_and_ends_at_the_server() -> None:
    async def never(request: ActRequest) -> ActResult:
        await asyncio.Event().wait()
        raise AssertionError

    acting = FakeActing(never)
    async with grpc_server(Methods(front(acting))) as address:
        with RobotClient(address, timeout_s=0.5) as client, pytest.raises(PolicyError) as error:
            await asyncio.to_thread(client.act, seen())
        async with asyncio.timeout(10):
            await acting.cancelled.wait()

    assert error.value.kind == "deadline_exceeded"


async def test_the_key_is_shown() -> None:
    async with grpc_server(Methods(front(keys=OneKey()))) as address:
        with RobotClient(address, key=KEY) as client:
            assert (await asyncio.to_thread(client.health)).healthy
        with RobotClient(address) as client, pytest.raises(PolicyError) as error:
            await asyncio.to_thread(client.act, seen())

    assert error.value.kind == "unauthenticated"


async def test_a_stream_answers_in_the_order_of_the_observations() -> None:
    def observations() -> Iterator[Seen]:
        yield from (seen(float(number)) for number in range(4))

    async with grpc_server(Methods(front())) as address:
        with RobotClient(address) as client:
            answers: list[Told] = await asyncio.to_thread(lambda: list(client.stream(observations())))

    assert [told.actions[0][-1] for told in answers] == [0, 1, 2, 3]


async def test_whoever_stops_reading_a_stream_ends_it_at_the_server() -> None:
    acting = FakeActing()

    async def first_only(request: ActRequest) -> ActResult:
        if request.observation.state is not None and request.observation.state[0] == 2:
            await asyncio.Event().wait()
        return await answered(request)

    async def observations() -> AsyncIterator[Seen]:
        yield seen(1.0)
        yield seen(2.0)
        await asyncio.Event().wait()

    acting.answer = first_only
    async with grpc_server(Methods(front(acting))) as address, AsyncRobotClient(address) as client:
        stream = client.stream(observations())
        assert (await anext(stream)).actions.shape == (2, 3)
        await acting.until(lambda: len(acting.asked) == 2)

        await stream.aclose()  # type: ignore[attr-defined]

        async with asyncio.timeout(10):
            await acting.cancelled.wait()


async def test_the_asyncio_client_answers_many_at_a_time() -> None:
    async with grpc_server(Methods(front())) as address, AsyncRobotClient(address) as client:
        answers = await asyncio.gather(*(client.act(seen(float(number))) for number in range(8)))

    assert [told.actions[0][-1] for told in answers] == list(range(8))
