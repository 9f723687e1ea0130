"""A robot policy that answers chunks: an observation in, the next `horizon` actions out, within the limits."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np

from configs.acting import ActConfig
from configs.base import ConfigError
from deployments.acting.counts import Counts
from deployments.acting.observations import check_text, decoded
from deployments.acting.safety import Safety
from deployments.acting.sessions import Sessions
from deployments.chunks.fingerprint import fingerprint
from deployments.chunks.transforms import cameras
from deployments.errors import PolicyError
from deployments.protocol.act import (
    ActRequest,
    ActResult,
    ChunkRequest,
    Chunks,
    ChunkShape,
    PolicyMetadata,
    Vector,
)


class ChunkedPolicy:
    """`infer` asks the policy's replicas; `check` costs nothing and comes first: one inference may answer
    several requests of a session, and an invalid one must not spoil it."""

    def __init__(self, name: str, config: ActConfig, chunks: Chunks, sessions: Sessions, counts: Counts) -> None:
        self._name = name
        self._config = config
        self._chunks = chunks
        self._sessions = sessions
        self._counts = counts
        self._asking = asyncio.Lock()
        self._shape: ChunkShape | None = None
        self._safety: Safety | None = None

    def answers_without_model(self, request: ActRequest) -> ActResult | None:
        return None

    async def prepare(self) -> None:
        """Asks for the policy's shape unless it is known. Raises PolicyError."""
        async with self._asking:
            if self._shape is None:
                shape = await self._chunks.shape()
                try:
                    self._safety = Safety(self._config.safety, [False] * shape.action_dim)
                except ConfigError as error:
                    raise PolicyError("internal", f"policy {self._name} cannot act: {error}") from error
                self._shape = shape

    async def check(self, request: ActRequest) -> None:
        """Raises PolicyError for a request that cannot be answered."""
        shape, safety = await self._known()
        observation = request.observation
        check_text(observation.instruction, "the instruction", self._config.max_text_chars)
        if observation.state is None:
            raise PolicyError("invalid_request", "Robot state is required but was not provided in the request")
        if len(observation.state) > shape.state_dim:
            raise PolicyError(
                "invalid_request", f"the state has {len(observation.state)} numbers; the policy takes {shape.state_dim}"
            )
        if len(observation.images) > shape.cameras:
            raise PolicyError(
                "invalid_request", f"{len(observation.images)} images for a policy of {shape.cameras} camera(s)"
            )
        if all(image is None for image in observation.images):
            raise PolicyError("invalid_request", "this policy needs at least one image")
        if request.statistics is not None and shape.statistics and request.statistics not in shape.statistics:
            raise PolicyError(
                "invalid_request",
                f"no action statistics {request.statistics!r}; this policy has {', '.join(shape.statistics)}",
            )
        _check_committed(request, shape)
        safety.check_position(observation.state)

    async def infer(self, request: ActRequest) -> ActResult:
        shape, safety = await self._known()
        session = self._sessions.of((self._name, request.session_id))
        asked = await decoded(_question, request, shape)
        answer = await self._chunks(asked)
        if answer.actions.ndim != 2 or answer.actions.shape[1] != shape.action_dim or not len(answer.actions):
            raise PolicyError(
                "engine_failed",
                f"the policy answered actions {list(answer.actions.shape)} of {shape.action_dim} dimensions",
            )
        previous = self._carried_out(request, shape, session.last_action)
        safe = safety.apply(answer.actions, previous, request.observation.state)
        self._sessions.add(session, None, safe.actions[-1], 0)
        self._counts.intervened(self._name, safe.interventions)
        return ActResult(
            request_id=request.request_id,
            actions=safe.actions,
            weight_version=answer.weight_version,
            interventions=safe.interventions,
            queue_ms=answer.queue_ms,
            infer_ms=answer.infer_ms,
        )

    def describe(self, metadata: PolicyMetadata) -> PolicyMetadata:
        if self._shape is None:
            return metadata
        shape = self._shape
        return replace(
            metadata,
            horizon=shape.horizon,
            action_dim=shape.action_dim,
            cameras=shape.cameras,
            resolution=shape.resolution,
            state_dim=shape.state_dim,
            max_delay=shape.max_delay,
            statistics=shape.statistics,
        )

    def _carried_out(self, request: ActRequest, shape: ChunkShape, last_action: Vector | None) -> Vector | None:
        """[D], the action that the robot is carrying out when the answer comes, as well as it is known: what it has
        already committed itself to; or its last action, where answers are single actions; or, for targets, where it is,
        if its state has as many numbers as an action. The last action of an earlier chunk says nothing: the robot may
        not have got to it."""
        committed = request.committed
        if committed is not None and len(committed.actions):
            return committed.actions[0]
        if shape.horizon == 1 and last_action is not None:
            return last_action
        state = request.observation.state
        if state is None or len(state) != shape.action_dim:
            return None
        return np.where(self._config.safety.relative or False, np.float32(np.nan), state)

    async def _known(self) -> tuple[ChunkShape, Safety]:
        await self.prepare()
        assert self._shape is not None
        assert self._safety is not None
        return self._shape, self._safety


def _check_committed(request: ActRequest, shape: ChunkShape) -> None:
    committed = request.committed
    if committed is None:
        return
    rows = committed.actions
    if not 0 <= committed.delay <= min(shape.max_delay, len(rows)):
        raise PolicyError(
            "invalid_request",
            f"delay must be in 0..{min(shape.max_delay, len(rows))} (at most {shape.max_delay}, and at most the "
            f"{len(rows)} prefix actions), got {committed.delay}",
        )
    if rows.ndim != 2 or (len(rows) and rows.shape[1] != shape.action_dim) or not np.isfinite(rows).all():
        raise PolicyError(
            "invalid_request",
            f"prefix actions must be rows of {shape.action_dim} finite numbers, got {list(rows.shape)}",
        )


def _question(request: ActRequest, shape: ChunkShape) -> ChunkRequest:
    observation = request.observation
    images, mask = cameras(observation.images, shape.cameras, shape.resolution)
    assert observation.state is not None
    asked = ChunkRequest(
        request_id=request.request_id,
        images=images,
        image_mask=mask,
        state=observation.state,
        prompt=observation.instruction,
        committed=request.committed,
        noise_seed=request.noise_seed,
        statistics=request.statistics,
        min_weight_version=request.min_weight_version,
        deadline_unix_s=request.deadline_unix_s,
    )
    # The replicas answer an id that they know without thinking again.
    return replace(asked, request_id=fingerprint(asked))
