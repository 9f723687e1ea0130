"""Schema of acting: how observations become prompts, and what keeps the answers of a policy within bounds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from configs.base import Strict


class SafetyConfig(Strict):
    """What every action of a policy is held to. All lists have one entry per action dimension, in the robot's units."""

    low: list[float] | None = Field(None, description="Smallest value of each dimension; None: no lower bound.")
    high: list[float] | None = Field(None, description="Largest value of each dimension; None: no upper bound.")
    max_delta: list[float] | None = Field(
        None,
        description="Largest change of each dimension from one step to the next; None: any. The first of a chunk is "
        "measured from the committed actions or, for targets, from a state of as many numbers; else it is free.",
    )
    workspace_low: list[float] | None = Field(
        None,
        description="Corner of the box in which state plus summed actions must stay, first dimensions; None: none.",
    )
    workspace_high: list[float] | None = Field(None, description="The opposite corner; set together with the first.")
    relative: list[bool] | None = Field(
        None,
        description="Which dimensions are changes of the state (true) and which are targets (false); None: for an "
        "arm all but the gripper are changes, for a chunk policy all are targets.",
    )
    fallback: Literal["hold", "no_op", "error"] = Field(
        "hold",
        description="What answers instead of an action that is not finite or could not be read: hold (the robot stays "
        "where it is: zero for a change, the last target or the state for a target), no_op (zeros), error (the request "
        "fails).",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        pairs = (
            ("low", self.low, "high", self.high),
            ("workspace_low", self.workspace_low, "workspace_high", self.workspace_high),
        )
        for low_name, low, high_name, high in pairs:
            if low is None or high is None:
                continue
            if len(low) != len(high):
                raise ValueError(
                    f"{low_name} has {len(low)} entries and {high_name} {len(high)}: give one per dimension"
                )
            if any(a > b for a, b in zip(low, high, strict=True)):
                raise ValueError(f"{low_name} is above {high_name} in some dimension: swap the two values")
        if (self.workspace_low is None) != (self.workspace_high is None):
            raise ValueError("workspace_low and workspace_high belong together: set both or none")
        for name in ("low", "high", "max_delta", "workspace_low", "workspace_high"):
            if not all(map(math.isfinite, getattr(self, name) or ())):
                raise ValueError(f"{name} must hold finite numbers: leave the whole list out where there is no limit")
        if self.max_delta is not None and any(delta < 0 for delta in self.max_delta):
            raise ValueError("max_delta must not be negative in any dimension")
        return self


class ArmConfig(Strict):
    """A robot arm behind a vision-language policy: `POST /act`."""

    action_bounds: Path | None = Field(
        None, description="File action_bounds.json with the statistics of each axis; None: BridgeData's."
    )
    statistics: dict[str, Path] = Field(
        default_factory=dict,
        description="Further files of that form, by the name that a request gives as unnorm_key; bridge_orig is built "
        "in.",
    )
    action_order: list[Literal["x", "y", "z", "tilt", "roll", "rotation", "gripper"]] = Field(
        default=["x", "y", "z", "tilt", "roll", "rotation", "gripper"],
        min_length=7,
        max_length=7,
        description="Which axis stands where in the answer. A robot that wants (roll, pitch, yaw) has tilt and roll "
        "exchanged: x, y, z, roll, tilt, rotation, gripper.",
    )
    answer: Literal["list", "dict"] = Field(
        "list",
        description="Shape of the answer: a bare list of seven numbers, or a dict with action, success and info.",
    )
    max_history_steps: int = Field(4, ge=0, description="Earlier steps of a session that the prompt shows.")
    temperature: float = Field(0.7, ge=0, le=2, description="Sampling temperature of the answer.")
    max_tokens: int = Field(512, ge=16, description="Longest answer, in tokens.")

    @model_validator(mode="after")
    def _each_axis_once(self) -> Self:
        if len(set(self.action_order)) != len(self.action_order):
            raise ValueError("action_order must name each of the seven axes once")
        return self


class GameConfig(Strict):
    """A MineRL player behind a vision-language policy: `POST /get_action`."""

    camera_convention: Literal["pitch_yaw", "yaw_pitch"] = Field(
        "pitch_yaw", description="Order of the two camera angles in what the model is asked for; answers: pitch, yaw."
    )
    tasks: dict[str, str] = Field(
        default_factory=dict,
        description="Further tasks by name: what the player is told to do. The four of BASALT are known.",
    )


class OpenpiConfig(Strict):
    """Where observations that arrive over WebSocket hold what the policy sees. A name is looked up in the observation
    itself, and then along its slashes: `a/b` is entry b of entry a."""

    cameras: list[str] = Field(
        default=["observation/image", "observation/wrist_image"],
        description="Names of the cameras, in the policy's order; a missing one is masked. Where none is there, "
        "all of the dict `images` are taken, in its own order.",
    )
    state: list[str] = Field(
        default=["observation/state"],
        description="Names of the parts of the state, joined in this order, e.g. "
        "[observation/joint_position, observation/gripper_position]. Where none of them is there, `state` is taken.",
    )
    prompt: str = Field("prompt", description="Name of the instruction.")


class ActConfig(Strict):
    """How a policy acts."""

    arm: ArmConfig | None = Field(None, description="Robot arm behind a vision-language policy; None: /act is off.")
    game: GameConfig | None = Field(None, description="MineRL player behind one; None: /get_action is off.")
    safety: SafetyConfig = Field(default_factory=SafetyConfig, description="What every action is held to.")
    openpi: OpenpiConfig = Field(default_factory=OpenpiConfig, description="Names in observations over WebSocket.")
    freshest: bool = Field(
        True,
        description="When observations of one session queue up, answer the older ones from the newest one's inference.",
    )
    session_idle_s: float = Field(
        600.0, gt=0, description="Seconds without a request after which a history is dropped."
    )
    max_sessions: int = Field(1024, ge=1, description="Sessions whose history is kept; the idlest goes first.")
    max_history_mib: int = Field(
        512,
        ge=1,
        description="Memory of all histories of the policy in an ingress, in MiB; beyond it the idlest session "
        "is forgotten.",
    )
    max_pixels: int = Field(4_194_304, ge=1, description="Largest image, height times width; a larger one is refused.")
    max_image_bytes: int = Field(
        33_554_432, ge=1024, description="Largest image as it is sent, encoded or as an array, in bytes."
    )
    max_images: int = Field(
        8,
        ge=1,
        description="Most images of one request, history included; no more than the engine takes in one prompt. Of a "
        "session's own history the newest that fit are shown.",
    )
    max_text_chars: int = Field(
        8192, ge=1, description="Longest instruction, and longest description of an earlier step, in characters."
    )

    @property
    def speaks(self) -> bool:
        """Whether a language policy acts, by answers that are read as actions."""
        return self.arm is not None or self.game is not None
