"""What a robot or a game sees and what it is told to do, as all clients take and give them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deployments.protocol.act import Actions, Committed, Frame


@dataclass(frozen=True, slots=True)
class Seen:
    """One observation, as the robot took it.

    `images`: one frame [H, W, 3] uint8 RGB for each of the policy's cameras, None for one that has nothing to show.
    `state` [D] in the robot's own units. `committed`: actions that it will have executed before the answer comes.
    `request_id` stays the same in every retry. `taken_unix_s`: seconds since 1970.
    """

    images: Sequence[Frame | None]
    instruction: str = ""
    state: NDArray[np.floating] | Sequence[float] | None = None
    committed: Committed | None = None
    noise_seed: int | None = None
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    taken_unix_s: float = field(default_factory=time.time)

    def state_list(self) -> list[float]:
        """[] where there is none."""
        return [] if self.state is None else np.asarray(self.state, np.float32).reshape(-1).tolist()


@dataclass(frozen=True, slots=True)
class Told:
    """The answer to one observation. `actions` [horizon, D] in the robot's own units, [1, 7] of an arm behind a
    language model. `observation_age_ms`: how old the observation was when it was answered, by both clocks."""

    request_id: str
    actions: Actions
    weight_version: int = 0
    text: str = ""
    parse_ok: bool = True
    interventions: tuple[str, ...] = ()
    infer_ms: float = 0.0
    observation_age_ms: float = 0.0
