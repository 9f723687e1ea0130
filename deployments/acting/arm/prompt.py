"""What a vision-language model is asked about a robot arm's next step."""

from __future__ import annotations

from collections.abc import Sequence

from deployments.acting.arm.axes import AXES
from deployments.errors import PolicyError
from deployments.protocol.act import ChatTurn, Frame, Observation, PastStep, Vector

STATE_LENGTH = 8  # contract: x, y, z, rx, ry, rz, 0, gripper
_GRIPPER_OPEN = 0.39  # contract: what a WidowX reports with its fingers fully open


def arm_turns(observation: Observation, history: Sequence[PastStep]) -> list[ChatTurn]:
    """The conversation that asks for one step: the rules, what happened before (oldest first), and what is seen now.
    `observation` has passed `check_observation`."""
    now = [f"Task: {observation.instruction}"]
    if observation.state is not None:
        now.append(state_text(observation.state))
    now.append("This is what the camera shows now. Which step comes next? Answer with the JSON object.")
    past = [turn for number, step in enumerate(history, 1) for turn in _past_turns(number, step)]
    return [ChatTurn("system", _RULES), *past, ChatTurn("user", "\n".join(now), seen(observation))]


def check_observation(observation: Observation) -> None:
    """Raises PolicyError("invalid_request") without an image, or for a state that is not eight numbers."""
    if not seen(observation):
        raise PolicyError("invalid_request", "this policy needs at least one image")
    state = observation.state
    if state is not None and len(state) != STATE_LENGTH:
        raise PolicyError(
            "invalid_request",
            f"proprio must be {STATE_LENGTH} numbers (x, y, z, rx, ry, rz, 0, gripper), got {len(state)}",
        )


def seen(observation: Observation) -> tuple[Frame, ...]:
    """The images of the cameras that sent one."""
    return tuple(image for image in observation.images if image is not None)


def state_text(state: Vector) -> str:
    """One line that a model can read, from (x, y, z, rx, ry, rz, 0, gripper) in metres and radians."""
    x, y, z, rx, ry, rz, _, gripper = map(float, state)
    opened = round(100 * min(max(gripper / _GRIPPER_OPEN, 0.0), 1.0))
    return (
        f"The gripper is at x {x:.3f}, y {y:.3f}, z {z:.3f} metres, turned by rx {rx:.2f}, ry {ry:.2f}, rz {rz:.2f} "
        f"radians, and its fingers are {opened} % open."
    )


def gripper_target(state: Vector) -> float:
    """1.0 when the fingers are more open than closed, else 0.0. `state` has the eight numbers of `state_text`."""
    return 1.0 if float(state[-1]) > _GRIPPER_OPEN / 2 else 0.0


def _past_turns(number: int, step: PastStep) -> list[ChatTurn]:
    return [
        ChatTurn("user", f"What the camera showed at earlier step {number}.", step.images),
        ChatTurn("assistant", step.description),
    ]


def _rules() -> str:
    axes = "\n".join(
        f'- "{axis}": "{directions.positive}" or "{directions.negative}" ({directions.meaning})'
        for axis, directions in AXES.items()
    )
    return (
        "You steer a robot arm in small steps towards a task. You see what its camera shows and you choose the next "
        "step.\n"
        "Look where the gripper is, where the object of the task is, and what lies between them. Then answer with one "
        "JSON object. Its keys are the seven axes of the arm, and each value is a list [direction, size, reason]:\n"
        f"{axes}\n"
        "The direction is one of the two named for the axis, or null to leave the axis alone; for the gripper always "
        "name one of the two. The size is a number from 0 to 1, where 1 is the longest step that the arm takes. The "
        "reason is a few words."
    )


_RULES = _rules()
