"""A ROS 2 node that acts by a served policy: cameras and joint states in, one action per period out.

    ros2 run ... or: python -m deployments.client.ros2 --ros-args -p server:=gpu-machine:50051 \\
        -p camera_topics:="[/base/image_raw, /wrist/image_raw]" -p control_hz:=50.0 -p prompt:="fold the towel"

rclpy comes with ROS and is imported when the node is made. What the node does is `RobotLink`, which knows no ROS.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deployments.client.chunk_player import Ask, ChunkPlayer
from deployments.client.observing import Seen
from deployments.errors import PolicyError
from deployments.protocol.act import Frame

CHANNELS = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
}


@dataclass(frozen=True, slots=True)
class Parameters:
    """The node's ROS parameters, with their defaults.

    `camera_topics`: sensor_msgs/Image, in the policy's order. `state_topic`: sensor_msgs/JointState, whose positions
    (and, with `with_velocities`, velocities) are the state. `prompt_topic`: std_msgs/String, replaces `prompt`.
    `action_topic`: std_msgs/Float64MultiArray, one action. `timeout_s`: of a question to the server, all its tries.
    `stale_s`: an image or state that is older is not acted on: the node holds.
    """

    server: str = "localhost:50051"
    key: str = ""
    policy: str = ""
    camera_topics: Sequence[str] = ("/camera0/image_raw",)
    state_topic: str = "/joint_states"
    with_velocities: bool = False
    prompt_topic: str = "/policy/prompt"
    prompt: str = ""
    action_topic: str = "/policy/action"
    control_hz: float = 10.0
    timeout_s: float = 2.0
    stale_s: float = 0.5


class RosImage(Protocol):
    """What is used of sensor_msgs/Image."""

    height: int
    width: int
    step: int  # bytes per row, padding included
    encoding: str
    data: Any


class RobotLink:
    """The newest of what a robot's topics said, and the actions that follow from it."""

    def __init__(
        self, parameters: Parameters, ask: Ask, clock: Callable[[], float] = time.monotonic, **player: Any
    ) -> None:
        self._parameters = parameters
        self._clock = clock
        self._player = ChunkPlayer(ask, **player)
        self._frames: list[tuple[float, Frame] | None] = [None] * len(parameters.camera_topics)
        self._state: tuple[float, NDArray[np.float32]] | None = None
        self._prompt = parameters.prompt
        self.waiting_for = "the first observation"  # why the last tick held; "" when it did not

    def on_image(self, camera: int, message: RosImage) -> None:
        """Raises PolicyError for an encoding that is not understood."""
        self._frames[camera] = (self._clock(), frame_of(message))

    def on_state(self, positions: Sequence[float], velocities: Sequence[float] = ()) -> None:
        numbers = [*positions, *velocities] if self._parameters.with_velocities else list(positions)
        self._state = (self._clock(), np.asarray(numbers, np.float32))

    def on_prompt(self, text: str) -> None:
        self._prompt = text

    def tick(self) -> list[float] | None:
        """The action of this period; None: hold, and `waiting_for` says why."""
        self.waiting_for = self._missing()
        if self.waiting_for:
            return None
        action = self._player.next_action(self._seen)
        if action is None:
            error = self._player.last_error
            self.waiting_for = f"the server: {error}" if error is not None else "the next actions"
            return None
        return [float(number) for number in action]

    def _seen(self) -> Seen:
        assert self._state is not None
        images = [found[1] for found in self._frames if found is not None]
        return Seen(images=images, instruction=self._prompt, state=self._state[1])

    def _missing(self) -> str:
        topics = [*self._parameters.camera_topics, self._parameters.state_topic]
        now = self._clock()
        for topic, found in zip(topics, [*self._frames, self._state], strict=True):
            if found is None:
                return f"the first message on {topic}"
            if now - found[0] > self._parameters.stale_s:
                return f"{topic}, which has been silent for {now - found[0]:.1f} s"
        return "" if self._prompt else f"a prompt (parameter prompt, or {self._parameters.prompt_topic})"


def frame_of(message: RosImage) -> Frame:
    """sensor_msgs/Image as uint8 RGB [H, W, 3]. Raises PolicyError for an encoding that is not understood."""
    if message.encoding not in CHANNELS:
        known = ", ".join(CHANNELS)
        raise PolicyError("invalid_request", f"image encoding {message.encoding!r} is not understood; known: {known}")
    channels, order = CHANNELS[message.encoding]
    row_bytes = message.width * channels
    data = np.frombuffer(bytes(message.data), np.uint8)
    if message.step < row_bytes or data.size < message.height * message.step:
        raise PolicyError("invalid_request", f"{data.size} bytes are too few for the image that its message describes")
    rows = data[: message.height * message.step].reshape(message.height, message.step)[:, :row_bytes]
    frame: Frame = np.ascontiguousarray(rows.reshape(message.height, message.width, channels)[..., list(order)])
    return frame


def make_node(parameters: Parameters | None = None) -> Any:
    """The node, subscribed and ticking once it is spun; `rclpy.init` comes before. `parameters`: None takes ROS's."""
    from rclpy.node import Node  # type: ignore[import-not-found]
    from rclpy.qos import qos_profile_sensor_data  # type: ignore[import-not-found]
    from sensor_msgs.msg import Image, JointState  # type: ignore[import-not-found]
    from std_msgs.msg import Float64MultiArray, String  # type: ignore[import-not-found]

    from deployments.client.grpc import RobotClient

    node = Node("rayward_policy")
    chosen = parameters or declared(node)
    client = RobotClient(
        chosen.server, key=chosen.key or None, policy=chosen.policy or None, timeout_s=chosen.timeout_s
    )
    link = RobotLink(chosen, client.act)
    for camera, topic in enumerate(chosen.camera_topics):
        node.create_subscription(
            Image, topic, lambda message, camera=camera: link.on_image(camera, message), qos_profile_sensor_data
        )
    node.create_subscription(JointState, chosen.state_topic, lambda m: link.on_state(m.position, m.velocity), 10)
    node.create_subscription(String, chosen.prompt_topic, lambda message: link.on_prompt(message.data), 10)
    actions = node.create_publisher(Float64MultiArray, chosen.action_topic, 10)

    def tick() -> None:
        action = link.tick()
        if action is not None:
            actions.publish(Float64MultiArray(data=action))
        else:
            node.get_logger().warning(f"holding: waiting for {link.waiting_for}", throttle_duration_sec=5.0)

    node.create_timer(1.0 / chosen.control_hz, tick)
    return node


def declared(node: Any) -> Parameters:
    """The parameters, as ROS was told them."""
    defaults = Parameters()
    found = {}
    for field in fields(Parameters):
        default = getattr(defaults, field.name)
        default = list(default) if isinstance(default, tuple) else default
        found[field.name] = node.declare_parameter(field.name, default).value
    return Parameters(**found)


def main() -> None:
    import rclpy  # type: ignore[import-not-found]

    rclpy.init()
    node = make_node()
    try:
        rclpy.spin(node)
    finally:
        node.destroy_node()
        rclpy.shutdown()


if __name__ == "__main__":
    main()
