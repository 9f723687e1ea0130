"""A robot arm steered by a vision-language policy: one observation in, one step of seven numbers out."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

import numpy as np

from configs.acting import ActConfig, ArmConfig
from configs.base import ConfigError
from deployments.acting.answers import UnreadableAnswer
from deployments.acting.arm.answer import move_schema, read_move
from deployments.acting.arm.axes import GRIPPER
from deployments.acting.arm.prompt import STATE_LENGTH, arm_turns, check_observation, gripper_target, seen
from deployments.acting.arm.statistics import action_of, chosen, statistics_of
from deployments.acting.counts import Counts
from deployments.acting.observations import check_text
from deployments.acting.safety import Safe, Safety
from deployments.acting.sessions import Session, Sessions
from deployments.errors import PolicyError
from deployments.protocol.act import (
    ActRequest,
    ActResult,
    Chat,
    ChatRequest,
    ChatResult,
    PastStep,
    PolicyMetadata,
    Vector,
)

TEST_CONNECTION = "test connection"  # contract: answers seven zeros without calling the model
_LONGEST_DESCRIPTION = 2000  # characters of an answer that a session remembers
_STATE_AXES = {"x": 0, "y": 1, "z": 2}  # where the state says how far the gripper is along an axis


class ArmPolicy:
    """`infer` asks the model and remembers the step in the session; `check` costs nothing and comes
    first: one inference may answer several requests of a session, and an invalid one must not spoil it."""

    def __init__(self, name: str, arm: ArmConfig, config: ActConfig, chat: Chat, sessions: Sessions, counts: Counts):
        """Raises ConfigError for statistics that cannot be read and for limits of another length."""
        self._name = name
        self._arm = arm
        self._max_images = config.max_images
        self._max_text_chars = config.max_text_chars
        self._chat = chat
        self._sessions = sessions
        self._counts = counts
        self._statistics = statistics_of(arm)
        self._schema = move_schema()
        self._safety = Safety(config.safety, [axis != GRIPPER for axis in arm.action_order])
        self._check_workspace()

    def answers_without_model(self, request: ActRequest) -> ActResult | None:
        """Seven zeros for a client that only wants to know whether somebody is there."""
        if request.observation.instruction != TEST_CONNECTION:
            return None
        return ActResult(request.request_id, np.zeros((1, len(self._arm.action_order)), np.float32), weight_version=0)

    async def prepare(self) -> None:
        """Nothing is asked of the model before the first question."""

    async def check(self, request: ActRequest) -> None:
        """Raises PolicyError for a request that cannot be answered."""
        observation = request.observation
        check_observation(observation)
        check_text(observation.instruction, "the instruction", self._max_text_chars)
        for step in request.history or ():
            check_text(step.description, "the description of an earlier step", self._max_text_chars)
        chosen(self._statistics, request.statistics)
        self._safety.check_position(self._position(observation.state))
        sent = [*observation.images, *(image for step in request.history or () for image in step.images)]
        if len(sent) > self._max_images:
            raise PolicyError(
                "too_large", f"{len(sent)} images: the policy takes at most {self._max_images}, history included"
            )

    async def infer(self, request: ActRequest) -> ActResult:
        session = self._sessions.of((self._name, request.session_id))
        said = await self._chat(self._question(request, self._history(request, session)))
        safe, readable = self._step(said, request, session)
        step = PastStep(seen(request.observation), said.text[:_LONGEST_DESCRIPTION]) if readable else None
        self._sessions.add(session, step, safe.actions[-1], self._arm.max_history_steps)
        self._counts.intervened(self._name, safe.interventions)
        return ActResult(
            request_id=request.request_id,
            actions=safe.actions,
            weight_version=said.weight_version,
            text=said.text,
            parse_ok=readable,
            interventions=safe.interventions,
            queue_ms=said.queue_ms,
            infer_ms=said.infer_ms,
        )

    def describe(self, metadata: PolicyMetadata) -> PolicyMetadata:
        return replace(metadata, horizon=1, action_dim=7, statistics=tuple(self._statistics))

    def _question(self, request: ActRequest, history: Sequence[PastStep]) -> ChatRequest:
        return ChatRequest(
            request_id=f"{request.request_id}-{uuid.uuid4().hex[:12]}",  # clients of several robots may count from 1
            turns=arm_turns(request.observation, history),
            deadline_unix_s=request.deadline_unix_s,
            temperature=self._arm.temperature,
            max_tokens=self._arm.max_tokens,
            seed=request.noise_seed,
            json_schema=self._schema,
            min_weight_version=request.min_weight_version,
        )

    def _history(self, request: ActRequest, session: Session) -> list[PastStep]:
        """The last steps that the client tells, or else those that its session has seen, as far as images allow."""
        steps = list(session.steps if request.history is None else request.history)
        room = self._max_images - len(seen(request.observation))
        kept: list[PastStep] = []
        for step in reversed(steps[max(0, len(steps) - self._arm.max_history_steps) :]):
            room -= len(step.images)
            if room < 0:
                break
            kept.insert(0, step)
        return kept

    def _step(self, said: ChatResult, request: ActRequest, session: Session) -> tuple[Safe, bool]:
        """(the step within the limits, whether the answer could be read)."""
        state = request.observation.state
        previous = session.last_action if session.last_action is not None else self._at_rest(state)
        try:
            move = read_move(said.text)
        except UnreadableAnswer:
            self._counts.unreadable[self._name, "act"] += 1
            return self._safety.instead(previous, self._position(state)), False
        action = action_of(move, chosen(self._statistics, request.statistics), self._arm.action_order)
        return self._safety.apply(action[None], previous, self._position(state)), True

    def _at_rest(self, state: Vector | None) -> Vector:
        """[7] of a robot before its first step: it does not move; its gripper is as the state says, else closed."""
        gripper = 0.0 if state is None else gripper_target(state)
        return np.array([gripper if axis == GRIPPER else 0.0 for axis in self._arm.action_order], np.float32)

    def _position(self, state: Vector | None) -> Vector | None:
        """Where the gripper is, in the order of the action and up to the first axis that turns the hand: the state's
        angles are not about these axes. The fingers have no place: what moves them is a target, not a change."""
        if state is None:
            return None
        placed = list(takewhile(lambda axis: axis in (*_STATE_AXES, GRIPPER), self._arm.action_order))
        return np.array([0.0 if axis == GRIPPER else state[_STATE_AXES[axis]] for axis in placed], np.float32)

    def _check_workspace(self) -> None:
        """Raises ConfigError for a workspace that no state could say the place in."""
        try:
            self._safety.check_position(self._position(np.zeros(STATE_LENGTH, np.float32)))
        except PolicyError as error:
            raise ConfigError(
                f"policy {self._name}: safety.workspace_low reaches beyond the axes x, y and z of action_order, and "
                "only their place is known"
            ) from error
