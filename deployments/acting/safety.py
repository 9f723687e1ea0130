"""What keeps a policy's actions within bounds, whatever it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.acting import SafetyConfig
from configs.base import ConfigError
from deployments.errors import PolicyError
from deployments.protocol.act import Actions, Intervention, Vector

Row = NDArray[np.float64]  # [D]


@dataclass(frozen=True, slots=True)
class Safe:
    """`actions` [horizon, D] are finite and within the bounds; `interventions` say what it took, each once."""

    actions: Actions
    interventions: tuple[Intervention, ...]


class Safety:
    """The limits of one policy, in its robot's units. Pure: whoever calls knows what the robot does and where it is.

    Three limits may contradict each other, for example when a robot starts outside its workspace. Then `low` and `high`
    win over the workspace, and the workspace wins over `max_delta`.
    """

    def __init__(self, config: SafetyConfig, relative: Sequence[bool]) -> None:
        """`relative` [D]: which dimensions are changes, where the configuration does not say. Raises ConfigError for
        lists of another length."""
        dimensions = len(relative)
        for name in ("low", "high", "max_delta", "relative"):
            entries = getattr(config, name)
            if entries is not None and len(entries) != dimensions:
                raise ConfigError(
                    f"safety.{name} has {len(entries)} entries, but the policy's actions have {dimensions} dimensions"
                )
        box = len(config.workspace_low or ())
        if box > dimensions:
            raise ConfigError(f"safety.workspace_low has {box} entries for actions of {dimensions} dimensions")
        self._fallback = config.fallback
        self._relative = np.array(relative if config.relative is None else config.relative, np.bool_)
        self._low = _inward(config.low, dimensions, -np.inf)
        self._high = _inward(config.high, dimensions, np.inf)
        self._max_delta = _filled(config.max_delta, dimensions, np.inf)
        self._box_low = _filled(config.workspace_low, dimensions, -np.inf)
        self._box_high = _filled(config.workspace_high, dimensions, np.inf)
        # As many numbers of the robot's position as the workspace needs to know.
        self._needed = max((d + 1 for d in range(box) if self._relative[d]), default=0)

    def apply(self, actions: Actions, previous: Vector | None, position: Vector | None) -> Safe:
        """`actions` [horizon, D] held to the limits, one after the other.

        `previous` [D] is the action that the robot is carrying out: the first one may differ from it by `max_delta`,
        and it stands in for actions that are not finite. None: nothing is known of it; NaN: not of that dimension.
        `position`: where the robot is;
        the workspace needs its first numbers.

        Raises PolicyError: "invalid_request" without a position that the workspace needs, "engine_failed" where an
        action is not finite and the fallback is an error, or there is nothing to hold.
        """
        self.check_position(position)
        where = np.zeros(len(self._relative))
        where[: self._needed] = 0.0 if position is None else position[: self._needed]
        wanted_rows = actions.astype(np.float64)
        if self._needs_nothing(wanted_rows, previous, where):
            return Safe(actions, ())
        taken: list[Intervention] = []
        rows: list[Vector] = []
        for wanted in wanted_rows:
            row = wanted
            if not np.isfinite(row).all():
                taken += ["not_finite"]
                row = self._in_place_of(previous, taken)
            safe = self._limited(row, previous, where, taken).astype(np.float32)
            where = where + np.where(self._relative, safe, 0.0)
            rows.append(safe)
            previous = safe
        return Safe(np.stack(rows), tuple(dict.fromkeys(taken)))

    def _needs_nothing(self, rows: NDArray[np.float64], previous: Vector | None, where: Row) -> bool:
        """Whether all `rows` [horizon, D] are within all limits as they are: the usual case, looked at in one go."""
        if not np.isfinite(rows).all():
            return False
        before = np.vstack([_known(previous, rows[0])[None], rows[:-1]])
        moved = np.cumsum(np.where(self._relative, np.vstack([where[None], rows[:-1]]), 0.0), axis=0)
        return bool(
            (rows >= self._low).all()
            and (rows <= self._high).all()
            and (rows >= before - self._max_delta).all()
            and (rows <= before + self._max_delta).all()
            and (rows >= self._box_low - moved).all()
            and (rows <= self._box_high - moved).all()
        )

    def check_position(self, position: Vector | None) -> None:
        """Raises PolicyError("invalid_request") for a position from which the workspace cannot be kept."""
        if self._needed and (position is None or len(position) < self._needed):
            raise PolicyError(
                "invalid_request", f"this policy keeps to a workspace: send a state of at least {self._needed} numbers"
            )

    def instead(self, previous: Vector | None, position: Vector | None) -> Safe:
        """[1, D] for an answer that could not be read. Raises PolicyError as `apply`."""
        taken: list[Intervention] = ["unparsed"]
        row = self._in_place_of(previous, taken)
        safe = self.apply(row[None].astype(np.float32), previous, position)
        return Safe(safe.actions, tuple(dict.fromkeys((*taken, *safe.interventions))))

    def _in_place_of(self, previous: Vector | None, taken: list[Intervention]) -> Row:
        """The fallback: no change for what is relative, and the previous target for what is not."""
        if self._fallback == "error":
            raise PolicyError("engine_failed", "the policy gave no usable action")
        if self._fallback == "no_op":
            taken += ["no_op"]
            return np.zeros(len(self._relative))
        nothing = np.full(len(self._relative), np.nan)
        held = np.where(self._relative, 0.0, _known(previous, nothing))
        if np.isnan(held).any():
            raise PolicyError(
                "engine_failed", "the policy gave no usable action, and there is no earlier one or state to hold"
            )
        taken += ["held"]
        return held

    def _limited(self, row: Row, previous: Vector | None, where: Row, taken: list[Intervention]) -> Row:
        """The strongest limit comes last."""
        before = _known(previous, row)
        row = _noted("slowed", row, np.clip(row, before - self._max_delta, before + self._max_delta), taken)
        origin = np.where(self._relative, where, 0.0)
        row = _noted("workspace", row, np.clip(row, self._box_low - origin, self._box_high - origin), taken)
        return _noted("clipped", row, np.clip(row, self._low, self._high), taken)


def _known(previous: Vector | None, otherwise: Row) -> Row:
    """[D]: `previous` as far as it is known, else the other."""
    return otherwise if previous is None else np.where(np.isnan(previous), otherwise, previous)


def _noted(name: Intervention, before: Row, after: Row, taken: list[Intervention]) -> Row:
    if not np.array_equal(before, after):
        taken.append(name)
    return after


def _filled(values: Sequence[float] | None, dimensions: int, missing: float) -> Row:
    """[D]: the values, and `missing` for the dimensions that have none."""
    out = np.full(dimensions, missing)
    out[: len(values or ())] = values or ()
    return out


def _inward(values: Sequence[float] | None, dimensions: int, missing: float) -> Row:
    """As `_filled`, each value moved to the next float32 on the inner side: an action is float32, and rounding one that
    lies on the bound must not carry it beyond."""
    wanted = _filled(values, dimensions, missing)
    rounded = wanted.astype(np.float32)
    beyond = rounded > wanted if missing > 0 else rounded < wanted
    towards = np.float32(-np.inf if missing > 0 else np.inf)
    return np.where(beyond, np.nextafter(rounded, towards), rounded).astype(np.float64)
