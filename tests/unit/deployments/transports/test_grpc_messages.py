"""Between the robots' messages and ours."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image

from deployments.acting.observations import ImageLimits
from deployments.errors import PolicyError
from deployments.protocol import policy_pb2 as pb
from deployments.protocol.act import ActRequest, ActResult, Committed
from deployments.transports.grpc_messages import act_request, response

FRAME = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


def encoded(frame: np.ndarray, kind: str) -> bytes:
    data = io.BytesIO()
    Image.fromarray(frame).save(data, kind)
    return data.getvalue()


def message(**fields: object) -> pb.ObservationRequest:
    return pb.ObservationRequest(**{"robot_state": pb.RobotState(state=[1, 2]), "request_id": "req_1", **fields})


def question(sent: pb.ObservationRequest) -> ActRequest:
    return act_request(sent, "stream 1", time.time() + 10, ImageLimits(), max_images=4)


def refused(sent: pb.ObservationRequest) -> PolicyError:
    with pytest.raises(PolicyError) as error:
        question(sent)
    return error.value


def test_png_and_raw_floats_in_either_range_are_the_same_frame() -> None:
    images = [
        pb.CameraImage(image_data=encoded(FRAME, "PNG"), encoding="png"),
        pb.CameraImage(image_data=FRAME.astype("<f4").tobytes(), encoding="raw"),
        pb.CameraImage(image_data=(FRAME / np.float32(255)).astype("<f4").tobytes(), encoding="raw"),
    ]

    found = question(message(images=images)).observation.images

    assert all(np.array_equal(frame, FRAME) for frame in found if frame is not None)
    assert len(found) == 3


def test_a_camera_that_sent_nothing_keeps_its_place() -> None:
    images = [pb.CameraImage(), pb.CameraImage(image_data=encoded(FRAME, "PNG"), encoding="png")]

    first, second = question(message(images=images)).observation.images

    assert first is None
    assert np.array_equal(second, FRAME)


def test_a_missing_state_is_refused_in_the_words_that_clients_know() -> None:
    error = refused(pb.ObservationRequest(prompt="fold"))

    assert (error.kind, error.message) == (
        "invalid_request",
        "Robot state is required but was not provided in the request",
    )


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"images": [pb.CameraImage(image_data=b"x", encoding="webm")]}, "Unknown image encoding: 'webm'"),
        ({"images": [pb.CameraImage(image_data=b"not a jpeg", encoding="jpeg")]}, "cannot be decoded"),
        ({"images": [pb.CameraImage(image_data=b"123", encoding="raw")]}, "square float32"),
        ({"prefix_action": [pb.ActionVector(values=[1]), pb.ActionVector(values=[1, 2])]}, "same length"),
        ({"prefix_action": [pb.ActionVector(values=[1])], "delay": 2}, "delay 2"),
        ({"delay": 1}, "delay 1"),
        ({"prefix_action": [pb.ActionVector(values=[1])], "delay": -1}, "delay -1"),
        ({"prefix_action": [pb.ActionVector()]}, "rows are empty"),
        ({"robot_state": pb.RobotState(state=[float("nan")])}, "finite"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(fields: dict[str, object], complaint: str) -> None:
    error = refused(message(**fields))

    assert error.kind == "invalid_request"
    assert complaint in error.message


@pytest.mark.parametrize(
    "fields",
    [
        {"images": [pb.CameraImage()] * 5},
        {"robot_state": pb.RobotState(state=[0.0] * 5000)},
        {"prefix_action": [pb.ActionVector(values=[0])] * 5000},
    ],
)
def test_more_than_a_robot_has_is_too_large(fields: dict[str, object]) -> None:
    assert refused(message(**fields)).kind == "too_large"


def test_committed_actions_arrive_with_how_many_are_frozen() -> None:
    rows = [pb.ActionVector(values=[0, 1]), pb.ActionVector(values=[2, 3])]

    committed = question(message(prefix_action=rows, delay=1)).committed

    assert isinstance(committed, Committed)
    assert committed.delay == 1
    assert committed.actions.tolist() == [[0, 1], [2, 3]]


def test_a_retry_is_the_same_question_and_another_robots_first_one_is_not() -> None:
    mine, again, other = (question(message(robot_state=pb.RobotState(state=[x]))).request_id for x in (1, 1, 2))

    assert mine == again
    assert mine != other


def test_the_time_at_which_it_was_taken_is_told_in_seconds() -> None:
    assert question(message(timestamp_ns=1_500_000_000)).observation.taken_unix_s == 1.5
    assert question(message()).observation.taken_unix_s is None


def test_a_seed_of_zero_is_a_seed() -> None:
    assert question(message(noise_seed=0)).noise_seed == 0
    assert question(message()).noise_seed is None


def test_the_answer_has_the_robots_own_name_for_its_request() -> None:
    result = ActResult("req_1#abc", np.eye(2, dtype=np.float32), 3, infer_ms=4.5, observation_id="req_2#def")

    answer = response("req_1", result)

    assert (answer.request_id, answer.observation_id, answer.inference_time_ms) == ("req_1", "req_2", 4.5)
    assert [list(row.values) for row in answer.action_chunk] == [[1, 0], [0, 1]]
    assert answer.timestamp_ns > 0
    assert not answer.HasField("accel")


def test_a_client_that_knows_only_the_contracts_fields_reads_the_answer() -> None:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)
    for kind in file.message_type:
        known = [field for field in kind.field if field.number < 100]
        del kind.field[:]
        kind.field.extend(known)
        if kind.name in ("ObservationRequest", "ActionChunkResponse"):
            wanted = [oneof for oneof in kind.oneof_decl if oneof.name == "_accel"]
            del kind.oneof_decl[:]
            kind.oneof_decl.extend(wanted)
    stock = message_factory.GetMessageClass(
        descriptor_pool.DescriptorPool()
        .AddSerializedFile(file.SerializeToString())
        .message_types_by_name["ActionChunkResponse"]
    )
    result = ActResult("a#b", np.ones((2, 3), np.float32), 3, interventions=("clipped",), observation_id="a#b")

    read = stock.FromString(response("a", result).SerializeToString())

    assert read.request_id == "a"
    assert [list(row.values) for row in read.action_chunk] == [[1, 1, 1], [1, 1, 1]]
