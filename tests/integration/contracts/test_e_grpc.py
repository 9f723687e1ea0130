"""RobotPolicyService over the real application: its own Ray, HAProxy in front, a chunk policy behind."""

from __future__ import annotations

import time
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from deployments.client.grpc import RobotClient
from deployments.client.images import png
from deployments.client.observing import Seen
from deployments.protocol import policy_pb2 as pb
from deployments.protocol.act import Committed
from deployments.protocol.policy_pb2_grpc import RobotPolicyServiceStub
from tests.integration.contracts.robots import RobotServer

pytestmark = pytest.mark.integration

FRAME = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
STATE = [0.1, 0.2, 0.3]
NO_STATE = "Robot state is required but was not provided in the request"
# As the stock client opens its channel; pings are sent without a call, too, as some robots' clients are set to.
STOCK_OPTIONS = [
    ("grpc.max_send_message_length", 100 * 2**20),
    ("grpc.max_receive_message_length", 100 * 2**20),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


@pytest.fixture
def stub(robots: RobotServer) -> Iterator[RobotPolicyServiceStub]:
    with grpc.insecure_channel(robots.grpc, STOCK_OPTIONS) as channel:
        yield RobotPolicyServiceStub(channel)


def observation(request_id: str = "req_1", seed: int | None = 1, **fields: object) -> pb.ObservationRequest:
    message = {
        "images": [pb.CameraImage(image_data=png(FRAME), encoding="png")],
        "robot_state": pb.RobotState(state=STATE),
        "prompt": "fold the towel",
        "timestamp_ns": time.time_ns(),
        "request_id": request_id,
        **fields,
    }
    return pb.ObservationRequest(**message, **({} if seed is None else {"noise_seed": seed}))


def rows(answer: pb.ActionChunkResponse) -> list[list[float]]:
    return [list(row.values) for row in answer.action_chunk]


def test_the_stock_clients_call_is_answered_by_a_chunk(stub: RobotPolicyServiceStub) -> None:
    answer = stub.GetActionChunk(observation(seed=None), timeout=20)

    assert np.shape(rows(answer)) == (10, 7)
    assert np.isfinite(rows(answer)).all()
    assert answer.request_id == "req_1"
    assert answer.inference_time_ms > 0
    assert abs(answer.timestamp_ns - time.time_ns()) < 60e9
    assert not answer.HasField("accel")
    assert (answer.HasField("weight_version"), answer.observation_age_ms >= 0) == (True, True)


def test_png_raw_0_to_255_and_raw_0_to_1_give_bit_equal_actions(stub: RobotPolicyServiceStub) -> None:
    images = [
        pb.CameraImage(image_data=png(FRAME), encoding="png"),
        pb.CameraImage(image_data=FRAME.astype("<f4").tobytes(), encoding="raw"),
        pb.CameraImage(image_data=(FRAME / np.float32(255)).astype("<f4").tobytes(), encoding="raw"),
    ]

    answers = [stub.GetActionChunk(observation(images=[image]), timeout=20) for image in images]

    assert rows(answers[0]) == rows(answers[1]) == rows(answers[2])


def test_the_frozen_actions_come_first(stub: RobotPolicyServiceStub) -> None:
    prefix = np.linspace(0, 1, 28, dtype=np.float32).reshape(4, 7)
    committed = [pb.ActionVector(values=row) for row in prefix.tolist()]

    answer = stub.GetActionChunk(observation(prefix_action=committed, delay=2), timeout=20)

    assert np.allclose(rows(answer)[:2], prefix[:2], atol=1e-5)


def test_a_retry_is_answered_as_before_and_another_observation_of_that_id_is_not(stub: RobotPolicyServiceStub) -> None:
    question = observation("req_7", seed=None)

    first, again = (stub.GetActionChunk(question, timeout=20) for _ in range(2))
    other = stub.GetActionChunk(observation("req_7", None, robot_state=pb.RobotState(state=[9, 9, 9])), timeout=20)

    assert rows(first) == rows(again)
    assert rows(first) != rows(other)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"robot_state": None}, NO_STATE),
        ({"images": [pb.CameraImage(image_data=b"\xff\xd8 corrupt", encoding="jpeg")]}, "cannot be decoded"),
        ({"images": [pb.CameraImage(image_data=b"x", encoding="webm")]}, "Unknown image encoding"),
        ({"images": [pb.CameraImage(image_data=b"x" * 13, encoding="raw")]}, "square float32"),
        ({"prefix_action": [pb.ActionVector(values=[1])], "delay": 2}, "delay 2"),
        ({"prefix_action": [pb.ActionVector(values=[1] * 7)] * 9, "delay": 9}, "delay"),
        ({"prefix_action": [pb.ActionVector(values=[1]), pb.ActionVector(values=[1, 2])]}, "same length"),
    ],
)
def test_what_cannot_be_understood_is_invalid_argument(
    stub: RobotPolicyServiceStub, fields: dict[str, object], complaint: str
) -> None:
    with pytest.raises(grpc.RpcError) as error:
        stub.GetActionChunk(observation(**fields), timeout=20)

    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert complaint in error.value.details()
    assert "Traceback" not in error.value.details()


def test_a_large_message_goes_through_and_a_larger_one_is_refused(stub: RobotPolicyServiceStub) -> None:
    large = np.zeros((1400, 1400, 3), "<f4").tobytes()  # 23.5 MB
    answer = stub.GetActionChunk(observation(images=[pb.CameraImage(image_data=large, encoding="raw")]), timeout=20)
    assert np.shape(rows(answer)) == (10, 7)

    with pytest.raises(grpc.RpcError) as error:
        stub.GetActionChunk(
            observation(images=[pb.CameraImage(image_data=bytes(99 * 2**20), encoding="raw")]), timeout=30
        )
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_stream_answers_every_observation_in_order_and_ends_after_half_close(stub: RobotPolicyServiceStub) -> None:
    questions = [observation(f"req_{i}", robot_state=pb.RobotState(state=[float(i)])) for i in range(6)]

    answers = list(stub.StreamActionChunks(iter(questions), timeout=60))

    assert [answer.request_id for answer in answers] == [f"req_{i}" for i in range(6)]
    assert all(np.shape(rows(answer)) == (10, 7) for answer in answers)


def test_a_bad_observation_ends_its_stream_with_a_status(stub: RobotPolicyServiceStub) -> None:
    call = stub.StreamActionChunks(iter([observation("req_1"), observation("req_2", robot_state=None)]), timeout=60)

    assert next(call).request_id == "req_1"
    with pytest.raises(grpc.RpcError) as error:
        next(call)
    assert (error.value.code(), error.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, NO_STATE)


def test_health_says_what_is_served(stub: RobotPolicyServiceStub) -> None:
    health = stub.HealthCheck(pb.HealthCheckRequest(), timeout=20)

    assert (health.healthy, health.status, health.model_name) == (True, "Server is running", "robot")
    assert health.device == "cpu"


def test_our_client_speaks_to_it(robots: RobotServer) -> None:
    committed = Committed(np.zeros((3, 7), np.float32), 1)
    with RobotClient(robots.grpc) as client:
        told = client.act(Seen(images=[FRAME, None], instruction="fold", state=STATE, committed=committed))
        streamed = list(client.stream(iter([Seen(images=[FRAME], state=STATE)] * 3)))

    assert told.actions.shape == (10, 7)
    assert np.allclose(told.actions[0], 0, atol=1e-5)
    assert len(streamed) == 3


def test_pings_on_an_idle_connection_are_allowed(robots: RobotServer) -> None:
    options = [*STOCK_OPTIONS, ("grpc.keepalive_time_ms", 1_000)]  # gRPC itself sends none more often than each second
    with grpc.insecure_channel(robots.grpc, options) as channel:
        stub, states = RobotPolicyServiceStub(channel), []
        stub.HealthCheck(pb.HealthCheckRequest(), timeout=20)
        channel.subscribe(states.append)

        time.sleep(5)  # idle is what is tested

        assert stub.HealthCheck(pb.HealthCheckRequest(), timeout=20).healthy
        assert grpc.ChannelConnectivity.TRANSIENT_FAILURE not in states
