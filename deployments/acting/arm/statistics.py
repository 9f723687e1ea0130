"""How far a robot moves in one step: the statistics of its recorded actions, from which sizes become metres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from configs.acting import ArmConfig
from configs.base import ConfigError
from deployments.acting.arm.answer import Move
from deployments.acting.arm.axes import AXES, GRIPPER, Axis
from deployments.errors import PolicyError
from deployments.protocol.act import Vector

DEFAULT = "default"
BRIDGE = "bridge_orig"  # the name under which BridgeData's statistics are asked for by its users
_BRIDGE_FILE = Path(__file__).with_name("bridge.json")


class AxisActions(BaseModel):
    """The part of an axis's statistics that is used; the others (mean, std, ...) may stand beside it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    median: float = Field(allow_inf_nan=False)
    interdecile_range: float = Field(ge=0, allow_inf_nan=False)


class AxisStatistics(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    description: str = ""
    actions: AxisActions | None = None


class ActionStatistics(BaseModel):
    """A file action_bounds.json: `{axis: {"description", "actions": {"median", "interdecile_range", ...}}}`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    x: AxisStatistics
    y: AxisStatistics
    z: AxisStatistics
    tilt: AxisStatistics
    roll: AxisStatistics
    rotation: AxisStatistics

    @model_validator(mode="after")
    def _complete(self) -> ActionStatistics:
        for axis in AXES:
            if axis != GRIPPER and getattr(self, axis).actions is None:
                raise ValueError(f"{axis} has no actions with median and interdecile_range")
        return self

    @staticmethod
    def read(file: Path) -> ActionStatistics:
        """Raises ConfigError that names the file and what is wrong in it."""
        try:
            return ActionStatistics.model_validate_json(file.read_bytes())
        except OSError as error:
            raise ConfigError(f"action statistics {file} cannot be read: {error.strerror or error}") from error
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, problem['loc'])) or 'file'}: {problem['msg']}" for problem in error.errors()
            )
            raise ConfigError(
                f"action statistics {file} do not have the form of action_bounds.json: {problems}"
            ) from error

    def value(self, axis: Axis, move: float | None) -> float:
        """median + move * interdecile range / 2, in metres or radians per step; 0 where the axis is left alone. The
        gripper: 1 open, 0 closed or left alone."""
        if move is None:
            return 0.0
        if axis == GRIPPER:
            return 1.0 if move > 0 else 0.0
        actions: AxisActions = getattr(self, axis).actions
        return actions.median + move * actions.interdecile_range / 2


def action_of(move: Move, statistics: ActionStatistics, order: Sequence[Axis]) -> Vector:
    """[7] in the robot's units, with the axes in `order`."""
    return np.array([statistics.value(axis, move[axis]) for axis in order], np.float32)


def statistics_of(config: ArmConfig) -> Mapping[str, ActionStatistics]:
    """By name: the policy's default, those that it names, and BridgeData's. Raises ConfigError."""
    bridge = ActionStatistics.read(_BRIDGE_FILE)
    default = bridge if config.action_bounds is None else ActionStatistics.read(config.action_bounds)
    named = {name: ActionStatistics.read(file) for name, file in config.statistics.items()}
    return {BRIDGE: bridge, DEFAULT: default, **named}


def chosen(statistics: Mapping[str, ActionStatistics], name: str | None) -> ActionStatistics:
    """Raises PolicyError("invalid_request") that lists the known names."""
    wanted = DEFAULT if name is None else name
    if wanted not in statistics:
        raise PolicyError(
            "invalid_request", f"no action statistics {wanted!r}; this policy has {', '.join(sorted(statistics))}"
        )
    return statistics[wanted]
