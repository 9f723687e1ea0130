"""What the ROS 2 node does, without ROS."""

from __future__ import annotations

import sys
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from deployments.client.observing import Seen, Told
from deployments.client.ros2 import Parameters, RobotLink, declared, frame_of
from deployments.errors import PolicyError

FRAME = np.random.default_rng(0).integers(0, 256, (2, 3, 3), np.uint8)


@dataclass
class Image:
    """As sensor_msgs/Image."""

    data: bytes
    encoding: str = "rgb8"
    height: int = 2
    width: int = 3
    step: int = 9


class Robot:
    """A link whose questions are answered at once, on a clock that a test moves."""

    def __init__(self, error: PolicyError | None = None, **parameters: Any) -> None:
        self.now = 0.0
        self.asked: list[Seen] = []
        self._error = error
        settings = Parameters(prompt="fold", **parameters)
        self.link = RobotLink(settings, self._ask, clock=lambda: self.now, submit=self._submit)

    def _ask(self, seen: Seen) -> Told:
        self.asked.append(seen)
        if self._error is not None:
            raise self._error
        return Told(seen.request_id, np.array([[1.0, 2.0], [3.0, 4.0]], np.float32))

    def _submit(self, ask: Any, seen: Seen) -> Future[Told]:
        answer: Future[Told] = Future()
        try:
            answer.set_result(ask(seen))
        except PolicyError as error:
            answer.set_exception(error)
        return answer

    def sees(self) -> None:
        self.link.on_image(0, Image(FRAME.tobytes()))
        self.link.on_state([0.5], [9.0])


def test_an_action_follows_once_everything_has_been_seen() -> None:
    robot = Robot()
    robot.sees()

    assert robot.link.tick() is None
    assert robot.link.tick() == [1.0, 2.0]
    assert np.array_equal(robot.asked[0].images[0], FRAME)  # type: ignore[arg-type]
    assert (robot.asked[0].instruction, robot.asked[0].state_list()) == ("fold", [0.5])


def test_it_holds_until_all_topics_have_spoken_and_says_which_has_not() -> None:
    robot = Robot(camera_topics=("/base", "/wrist"))
    robot.sees()

    assert robot.link.tick() is None
    assert robot.link.waiting_for == "the first message on /wrist"
    assert robot.asked == []


def test_it_does_not_act_on_what_a_silent_camera_saw_long_ago() -> None:
    robot = Robot(stale_s=0.5)
    robot.sees()
    robot.now = 0.4
    robot.link.on_state([0.5])
    robot.now = 0.6

    assert robot.link.tick() is None
    assert "/camera0/image_raw, which has been silent for 0.6 s" in robot.link.waiting_for


def test_the_prompt_may_be_changed_and_none_means_hold() -> None:
    robot = Robot()
    robot.sees()
    robot.link.on_prompt("")
    assert robot.link.tick() is None
    assert "a prompt" in robot.link.waiting_for

    robot.link.on_prompt("unfold")
    robot.link.tick()

    assert robot.asked[0].instruction == "unfold"


def test_velocities_are_part_of_the_state_where_that_is_wanted() -> None:
    robot = Robot(with_velocities=True)
    robot.sees()
    robot.link.tick()

    assert robot.asked[0].state_list() == [0.5, 9.0]


def test_while_the_server_is_away_it_holds_and_says_why() -> None:
    robot = Robot(error=PolicyError("unavailable", "no route to host"))
    robot.sees()

    robot.link.tick()
    assert robot.link.tick() is None
    assert "no route to host" in robot.link.waiting_for


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("rgb8", FRAME),
        ("bgr8", FRAME[..., ::-1]),
        ("rgba8", np.dstack([FRAME, np.zeros((2, 3), np.uint8)])),
        ("bgra8", np.dstack([FRAME[..., ::-1], np.zeros((2, 3), np.uint8)])),
    ],
)
def test_every_order_of_colours_becomes_rgb(encoding: str, data: np.ndarray) -> None:
    message = Image(np.ascontiguousarray(data).tobytes(), encoding, step=3 * data.shape[2])

    assert np.array_equal(frame_of(message), FRAME)


def test_grey_becomes_three_equal_colours() -> None:
    assert frame_of(Image(bytes(range(6)), "mono8", step=3))[1, 2].tolist() == [5, 5, 5]


def test_padding_behind_the_rows_is_left_out() -> None:
    padded = np.zeros((2, 12), np.uint8)
    padded[:, :9] = FRAME.reshape(2, 9)

    assert np.array_equal(frame_of(Image(padded.tobytes(), step=12)), FRAME)


@pytest.mark.parametrize("message", [Image(FRAME.tobytes(), "yuv422"), Image(b"123"), Image(FRAME.tobytes(), step=3)])
def test_an_image_that_is_not_understood_is_refused(message: Image) -> None:
    with pytest.raises(PolicyError):
        frame_of(message)


def test_the_parameters_are_those_that_ros_was_given() -> None:
    class Node:
        def declare_parameter(self, name: str, default: Any) -> Any:
            given = {"control_hz": 50.0, "camera_topics": ["/a", "/b"]}
            return type("Parameter", (), {"value": given.get(name, default)})

    found = declared(Node())

    assert (found.control_hz, list(found.camera_topics), found.timeout_s) == (50.0, ["/a", "/b"], 2.0)


def test_ros_is_needed_only_for_the_node() -> None:
    assert "rclpy" not in sys.modules
