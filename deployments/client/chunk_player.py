"""Plays chunks of actions on the robot at its control rate, and asks for the next one in time (real-time chunking).

    player = ChunkPlayer(robot.act)
    play(player, observe=lambda: Seen(...), send=arm.move, control_hz=50)

The executed actions follow each other without a seam: each answer continues with the very actions that the robot was
going to execute while it was on its way, whatever that took. Where an answer takes longer than what is left of the
running chunk, the robot holds (nothing is sent), and goes on from there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from deployments.chunks.real_time import ChunkSchedule, DelayEstimate
from deployments.client.observing import Seen, Told
from deployments.errors import PolicyError
from deployments.protocol.act import Vector

logger = logging.getLogger(__name__)

Ask = Callable[[Seen], Told]
Submit = Callable[[Ask, Seen], "Future[Told]"]  # as ThreadPoolExecutor.submit


@dataclass(frozen=True, slots=True)
class _Asked:
    answer: Future[Told]
    at_step: int  # of the robot, in executed actions
    at_tick: int


class ChunkPlayer:
    """One action per tick of the robot's clock. Not thread-safe: call it from the control loop alone."""

    def __init__(
        self,
        ask: Ask,
        max_delay: int | None = None,
        execute_steps: int | None = None,
        submit: Submit | None = None,
    ) -> None:
        """`ask`: a client's `act`. `max_delay`: most frozen actions that the policy takes (None: any). `execute_steps`:
        actions of a chunk after which the next is asked for (None: half of it). `submit`: where `ask` runs; by default
        in a thread of the player's own, so that a tick never waits for the server."""
        self._ask = ask
        self._schedule = ChunkSchedule(max_delay)
        self._delay = DelayEstimate()
        self._execute_steps = execute_steps
        self._submit = submit or ThreadPoolExecutor(1, thread_name_prefix="chunks").submit
        self._asked: _Asked | None = None
        self._step = 0
        self._tick = 0
        self.last_error: PolicyError | None = None  # of the newest answer; None once one succeeds

    def next_action(self, observe: Callable[[], Seen]) -> Vector | None:
        """The action [D] of this tick; None: hold. `observe` is called when a new chunk is asked for, and only then."""
        self._take_answer()
        if self._asked is None and self._schedule.is_due(self._step, self._delay.expected(), self._execute_steps):
            self._ask_with(observe())
        action = self._schedule.next_action(self._step)
        self._tick += 1
        if action is not None:
            self._step += 1
        return action

    @property
    def held(self) -> int:
        """Ticks so far that had no action."""
        return self._tick - self._step

    def _ask_with(self, seen: Seen) -> None:
        committed = self._schedule.committed(self._step, self._delay.expected())
        answer = self._submit(self._ask, replace(seen, committed=committed))
        self._asked = _Asked(answer, self._step, self._tick)

    def _take_answer(self) -> None:
        if self._asked is None or not self._asked.answer.done():
            return
        asked, self._asked = self._asked, None
        try:
            told = asked.answer.result()
        except PolicyError as error:
            self.last_error = error
            logger.warning("no new actions: %s; asking again", error)
            return
        self.last_error = None
        # In ticks: while it holds, a robot executes nothing. One very slow answer must not freeze whole chunks.
        self._delay.measured(min(self._tick - asked.at_tick, len(told.actions) // 2))
        self._schedule.accept(told.actions, asked.at_step)


def play(
    player: ChunkPlayer,
    observe: Callable[[], Seen],
    send: Callable[[Vector], None],
    control_hz: float,
    is_over: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Sends an action per period until `is_over`. A tick that comes late is not made up for by hurried ones."""
    period_s = 1 / control_hz
    next_tick = clock()
    while not is_over():
        action = player.next_action(observe)
        if action is not None:
            send(action)
        next_tick = max(next_tick + period_s, clock())
        sleep(max(0.0, next_tick - clock()))
