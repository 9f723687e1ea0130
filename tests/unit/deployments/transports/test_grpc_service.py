"""RobotPolicyService over a real grpc.aio server and channel, with Serve's own context, and a policy of the test's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest

from deployments.errors import PolicyError
from deployments.protocol import policy_pb2 as pb
from deployments.protocol.act import ActRequest, ActResult
from deployments.protocol.policy_pb2_grpc import RobotPolicyServiceStub
from tests.unit.deployments.transports.fakes import KEY, FakeActing, OneKey, answered, front
from tests.unit.deployments.transports.serving import Methods, grpc_server


@asynccontextmanager
async def served(methods: Methods) -> AsyncIterator[RobotPolicyServiceStub]:
    async with grpc_server(methods) as address, grpc.aio.insecure_channel(address) as channel:
        yield RobotPolicyServiceStub(channel)


def observation(request_id: str = "req_1", state: float = 1.0, **fields: Any) -> pb.ObservationRequest:
    raw = np.full((4, 4, 3), 51, "<f4").tobytes()
    return pb.ObservationRequest(
        images=[pb.CameraImage(image_data=raw, encoding="raw")],
        robot_state=pb.RobotState(state=[state]),
        prompt="fold the towel",
        request_id=request_id,
        **fields,
    )


async def failure_of(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


def trailing(error: grpc.aio.AioRpcError) -> dict[str, str]:
    return {str(key): str(value) for key, value in error.trailing_metadata() or ()}


async def test_one_observation_is_answered_by_a_chunk() -> None:
    acting = FakeActing()
    async with served(Methods(front(acting))) as stub:
        answer = await stub.GetActionChunk(observation(timestamp_ns=5))

    assert answer.request_id == "req_1"
    assert [list(row.values) for row in answer.action_chunk] == [[51, 1], [52, 2]]
    assert answer.inference_time_ms == 12.5
    assert (answer.weight_version, list(answer.interventions)) == (7, ["clipped"])
    assert acting.asked[0].observation.instruction == "fold the towel"


async def test_single_calls_share_no_session_and_a_named_session_is_kept() -> None:
    acting = FakeActing()
    async with served(Methods(front(acting))) as stub:
        await stub.GetActionChunk(observation())
        await stub.GetActionChunk(observation(), metadata=[("x-session-id", "robot 4"), ("x-noise-seed", "3")])

    assert [request.session_id for request in acting.asked] == ["", "robot 4"]
    assert [request.noise_seed for request in acting.asked] == [None, 3]


async def test_a_request_without_an_id_is_given_one() -> None:
    async with served(Methods(front())) as stub:
        first, second = await stub.GetActionChunk(observation("")), await stub.GetActionChunk(observation(""))

    assert len({first.request_id, second.request_id, ""}) == 3


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("invalid_request", "INVALID_ARGUMENT"),
        ("overloaded", "RESOURCE_EXHAUSTED"),
        ("unavailable", "UNAVAILABLE"),
        ("deadline_exceeded", "DEADLINE_EXCEEDED"),
        ("internal", "INTERNAL"),
    ],
)
async def test_a_failure_has_the_code_of_its_kind(kind: str, code: str) -> None:
    async def fails(request: ActRequest) -> ActResult:
        raise PolicyError(kind, "what was wrong", retry_after_s=0.25)

    async with served(Methods(front(FakeActing(fails)))) as stub:
        error = await failure_of(stub.GetActionChunk(observation()))

    assert (error.code().name, error.details()) == (code, "what was wrong")
    assert trailing(error)["x-error-kind"] == kind


async def test_a_refusal_for_want_of_room_says_when_to_come_back() -> None:
    async def fails(request: ActRequest) -> ActResult:
        raise PolicyError("overloaded", "the queue is full", retry_after_s=0.25)

    async with served(Methods(front(FakeActing(fails)))) as stub:
        error = await failure_of(stub.GetActionChunk(observation()))

    assert trailing(error)["grpc-retry-pushback-ms"] == "250"


async def test_a_defect_tells_no_traceback() -> None:
    async def fails(request: ActRequest) -> ActResult:
        raise RuntimeError("secret path /home/robot")

    async with served(Methods(front(FakeActing(fails)))) as stub:
        error = await failure_of(stub.GetActionChunk(observation()))

    assert error.code() == grpc.StatusCode.INTERNAL
    assert "secret" not in error.details()


async def test_a_message_over_its_bound_is_refused() -> None:
    async with served(Methods(front(grpc={"max_message_mb": 1}))) as stub:
        error = await failure_of(stub.GetActionChunk(_large()))

    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "the limit is 1048576" in error.details()


def _large() -> pb.ObservationRequest:
    message = observation()
    message.images[0].image_data = b"\0" * 2**21
    return message


@pytest.mark.parametrize("metadata", [[], [("x-tuner-api-key", "wrong")], [("authorization", "Bearer wrong")]])
@pytest.mark.parametrize("method", ["GetActionChunk", "HealthCheck"])
async def test_without_the_key_every_method_is_refused(metadata: list[tuple[str, str]], method: str) -> None:
    acting = FakeActing()
    request = observation() if method == "GetActionChunk" else pb.HealthCheckRequest()
    async with served(Methods(front(acting, OneKey()))) as stub:
        error = await failure_of(getattr(stub, method)(request, metadata=metadata))

    assert (error.code(), error.details()) == (grpc.StatusCode.UNAUTHENTICATED, "Missing or invalid x-tuner-api-key")
    assert acting.asked == []


@pytest.mark.parametrize("metadata", [[("x-tuner-api-key", KEY)], [("authorization", f"Bearer {KEY}")]])
async def test_the_key_opens_every_method(metadata: list[tuple[str, str]]) -> None:
    async with served(Methods(front(keys=OneKey()))) as stub:
        assert (await stub.HealthCheck(pb.HealthCheckRequest(), metadata=metadata)).healthy
        assert (await stub.GetActionChunk(observation(), metadata=metadata)).action_chunk
        stream = stub.StreamActionChunks(_sent([observation()]), metadata=metadata)
        assert [answer.request_id async for answer in stream] == ["req_1"]


async def test_a_stream_without_the_key_is_refused() -> None:
    async with served(Methods(front(keys=OneKey()))) as stub:
        error = await failure_of(stub.StreamActionChunks(_sent([observation()])).read())

    assert error.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_a_stream_answers_in_order_and_ends_behind_the_last_answer_after_half_close() -> None:
    acting = FakeActing()
    async with served(Methods(front(acting))) as stub:
        requests = [observation(f"req_{i}", state=i) for i in range(5)]
        answers = [answer async for answer in stub.StreamActionChunks(_sent(requests))]

    assert [answer.request_id for answer in answers] == [f"req_{i}" for i in range(5)]
    assert [answer.action_chunk[0].values[1] for answer in answers] == [0, 1, 2, 3, 4]


async def test_a_stream_reads_on_while_it_answers() -> None:
    third = asyncio.Event()

    async def when_the_third_is_there(request: ActRequest) -> ActResult:
        assert request.observation.state is not None
        if request.observation.state[0] == 2:
            third.set()
        await third.wait()
        return await answered(request)

    async with served(Methods(front(FakeActing(when_the_third_is_there)))) as stub:
        requests = [observation(f"req_{i}", state=i) for i in range(3)]
        answers = [answer async for answer in stub.StreamActionChunks(_sent(requests))]

    assert len(answers) == 3


async def test_each_stream_is_a_session_that_is_forgotten_with_it() -> None:
    acting = FakeActing()
    async with served(Methods(front(acting))) as stub:
        for _ in range(2):
            assert [answer async for answer in stub.StreamActionChunks(_sent([observation()]))]
        named = stub.StreamActionChunks(_sent([observation()]), metadata=[("x-session-id", "robot 4")])
        assert [answer async for answer in named]

    sessions = [request.session_id for request in acting.asked]
    assert len(set(sessions)) == 3
    assert acting.forgotten == sessions[:2]
    assert sessions[2] == "robot 4"


async def test_a_client_that_cancels_ends_the_inference() -> None:
    async def never(request: ActRequest) -> ActResult:
        await asyncio.Event().wait()
        raise AssertionError

    acting = FakeActing(never)
    async with served(Methods(front(acting))) as stub:
        call = stub.StreamActionChunks(_open_stream([observation()]))
        reading = asyncio.create_task(call.read())
        await acting.begun.wait()

        call.cancel()

        async with asyncio.timeout(10):
            await acting.cancelled.wait()
        await asyncio.gather(reading, return_exceptions=True)


async def test_a_bad_observation_ends_its_stream_with_a_status_behind_the_answers_before_it() -> None:
    async with served(Methods(front())) as stub:
        bad = observation("req_2")
        bad.images[0].encoding = "webm"
        call = stub.StreamActionChunks(_sent([observation("req_1"), bad, observation("req_3")]))
        first = await call.read()
        error = await failure_of(call.read())

    assert first.request_id == "req_1"
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "Unknown image encoding" in error.details()


async def test_health_names_what_is_served_and_where_it_runs() -> None:
    statuses = {"arm": {"ready": True, "device": "cuda", "gpu_memory_used_gb": 3.5, "gpu_memory_total_gb": 80.0}}
    async with served(Methods(front(), statuses)) as stub:
        health = await stub.HealthCheck(pb.HealthCheckRequest())

    assert (health.healthy, health.status, health.model_name, health.device) == (
        True,
        "Server is running",
        "arm",
        "cuda",
    )
    assert (health.gpu_memory_used_gb, health.gpu_memory_total_gb) == (3.5, 80.0)


async def test_a_policy_without_a_replica_is_unhealthy() -> None:
    async with served(Methods(front(), {"arm": {"ready": False}})) as stub:
        health = await stub.HealthCheck(pb.HealthCheckRequest())

    assert (health.healthy, health.status) == (False, "not ready: arm")


async def test_the_policy_is_named_by_metadata_or_by_the_configuration() -> None:
    two = [{"kind": "chunks", "name": name, "checkpoint": "made-up"} for name in ("left", "right")]
    acting = FakeActing()
    async with served(Methods(front(acting, policies=two))) as stub:
        await stub.GetActionChunk(observation(), metadata=[("x-policy", "right")])
        error = await failure_of(stub.GetActionChunk(observation()))
    async with served(Methods(front(acting, policies=two, grpc={"policy": "left"}))) as stub:
        await stub.GetActionChunk(observation())

    assert acting.policies == ["right", "left"]
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert "left, right" in error.details()


async def _sent(requests: list[pb.ObservationRequest]) -> AsyncIterator[pb.ObservationRequest]:
    for request in requests:
        yield request


async def _open_stream(requests: list[pb.ObservationRequest]) -> AsyncIterator[pb.ObservationRequest]:
    for request in requests:
        yield request
    await asyncio.Event().wait()
