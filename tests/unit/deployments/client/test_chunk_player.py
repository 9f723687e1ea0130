"""Playing chunks on a virtual clock: the executed actions follow each other whatever the answers take."""

from __future__ import annotations

import asyncio
import queue
import random
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.client.chunk_player import Ask, ChunkPlayer, play
from deployments.client.grpc import RobotClient
from deployments.client.observing import Seen, Told
from deployments.errors import PolicyError
from deployments.protocol.act import Actions, ActRequest, ActResult, Committed
from tests.unit.deployments.transports.fakes import FakeActing, front
from tests.unit.deployments.transports.serving import Methods, grpc_server

HORIZON = 16


def counting(place: float, committed: Committed | None) -> Actions:
    """[HORIZON, 1]: the policy a_t = t goes on from where the robot is; what is committed comes first."""
    actions = np.arange(place, place + HORIZON, dtype=np.float32)
    if committed is not None:
        frozen = committed.actions[: committed.delay, 0]
        actions[: len(frozen)] = frozen
    return actions[:, None]


def at_once(seen: Seen) -> Told:
    return Told(seen.request_id, counting(seen.state_list()[0], seen.committed))


class Robot:
    """Moves one place per executed action, and sees where it is. Time is counted in ticks of the control clock (20 ms
    at 50 Hz): the answer of `policy` comes so many of them after the question."""

    def __init__(self, delay_ticks: Callable[[], int], policy: Ask = at_once) -> None:
        self.tick = 0
        self.executed: list[float] = []
        self._delay_ticks = delay_ticks
        self._policy = policy
        self._under_way: list[tuple[int, Future[Told], Seen]] = []
        self.failing = False

    def observe(self) -> Seen:
        return Seen(images=[], state=[float(len(self.executed))])

    def submit(self, ask: Callable[[Seen], Told], seen: Seen) -> Future[Told]:
        answer: Future[Told] = Future()
        self._under_way.append((self.tick + self._delay_ticks(), answer, seen))
        return answer

    def run(self, player: ChunkPlayer, ticks: int) -> None:
        for _ in range(ticks):
            for due, answer, seen in self._under_way:
                if due <= self.tick and not answer.done():
                    self._answer(answer, seen)
            action = player.next_action(self.observe)
            if action is not None:
                self.executed.append(float(action[0]))
            self.tick += 1

    def _answer(self, answer: Future[Told], seen: Seen) -> None:
        if self.failing:
            answer.set_exception(PolicyError("unavailable", "the server is away"))
            return
        answer.set_result(self._policy(seen))


def never_asked(seen: Seen) -> Told:
    raise AssertionError("the robot's own submit answers")


def largest_jump(executed: list[float]) -> float:
    """How far an action is from the one that should have followed; 0: each is one more than the last."""
    return float(np.abs(np.diff(executed) - 1).max(initial=0.0))


@given(seed=st.integers(0, 10_000), first_ticks=st.integers(0, 100), longest_ticks=st.integers(0, HORIZON))
def test_the_executed_sequence_never_jumps_or_repeats_by_more_than_one_step(
    seed: int, first_ticks: int, longest_ticks: int
) -> None:
    """Delays of 0 to a whole horizon with jitter, the first answer slow. The bound that holds is 0: no step is left out
    and none is done twice; where an answer comes too late the robot holds."""
    delays = random.Random(seed)
    first = iter([first_ticks])
    robot = Robot(lambda: next(first, None) or delays.randint(0, longest_ticks))
    player = ChunkPlayer(never_asked, submit=robot.submit)

    robot.run(player, ticks=300)

    assert len(robot.executed) > 50
    assert robot.executed[0] == 0
    assert largest_jump(robot.executed) == 0


def by_single_calls(client: RobotClient) -> Ask:
    return client.act


def by_a_stream(client: RobotClient) -> Ask:
    """One bidirectional stream, on which every observation waits for its answer."""
    observations: queue.SimpleQueue[Seen] = queue.SimpleQueue()
    answers = client.stream(iter(observations.get, None))

    def ask(seen: Seen) -> Told:
        observations.put(seen)
        return next(answers)

    return ask


@pytest.mark.parametrize("asking", [by_single_calls, by_a_stream])
async def test_there_is_no_seam_either_when_observations_and_chunks_travel_over_grpc(
    asking: Callable[[RobotClient], Ask],
) -> None:
    """The same delays; state, committed actions and chunks pass through the messages and a real server. The bound is 0
    here, too."""

    async def acts(request: ActRequest) -> ActResult:
        assert request.observation.state is not None
        actions = counting(float(request.observation.state[0]), request.committed)
        return ActResult(request.request_id, actions, weight_version=0)

    def played(address: str) -> tuple[Robot, ChunkPlayer]:
        delays, first = random.Random(0), iter([100])
        with RobotClient(address) as client:
            robot = Robot(lambda: next(first, None) or delays.randint(0, HORIZON), asking(client))
            player = ChunkPlayer(never_asked, submit=robot.submit)
            robot.run(player, ticks=300)
        return robot, player

    async with grpc_server(Methods(front(FakeActing(acts)))) as address:
        robot, player = await asyncio.to_thread(played, address)

    assert player.last_error is None
    assert len(robot.executed) > 50
    assert robot.executed[0] == 0
    assert largest_jump(robot.executed) == 0


@pytest.mark.parametrize("delay_ticks", range(1, HORIZON // 2))
def test_answers_that_take_up_to_half_a_chunk_never_make_the_robot_hold(delay_ticks: int) -> None:
    robot = Robot(lambda: delay_ticks)
    player = ChunkPlayer(never_asked, submit=robot.submit)

    robot.run(player, ticks=200)

    assert player.held == delay_ticks  # before the first chunk


def test_the_actions_that_will_be_executed_meanwhile_are_committed() -> None:
    robot, asked = Robot(lambda: 3), []

    def submit(ask: Callable[[Seen], Told], seen: Seen) -> Future[Told]:
        asked.append(seen)
        return robot.submit(ask, seen)

    robot.run(ChunkPlayer(never_asked, submit=submit), ticks=40)

    assert asked[0].committed is None
    second = asked[1]
    assert second.committed is not None
    assert second.committed.delay == 3
    assert second.committed.actions[0, 0] == second.state_list()[0]


def test_never_more_is_frozen_than_the_policy_takes() -> None:
    robot, frozen = Robot(lambda: 7), []

    def submit(ask: Callable[[Seen], Told], seen: Seen) -> Future[Told]:
        frozen.append(0 if seen.committed is None else seen.committed.delay)
        return robot.submit(ask, seen)

    robot.run(ChunkPlayer(never_asked, max_delay=2, submit=submit), ticks=100)

    assert max(frozen) == 2


def test_one_observation_is_asked_about_at_a_time() -> None:
    robot = Robot(lambda: 5)
    under_way, most = 0, 0

    def submit(ask: Callable[[Seen], Told], seen: Seen) -> Future[Told]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        answer = robot.submit(ask, seen)
        answer.add_done_callback(lambda _: left())
        return answer

    def left() -> None:
        nonlocal under_way
        under_way -= 1

    robot.run(ChunkPlayer(never_asked, submit=submit), ticks=100)

    assert most == 1


def test_while_the_server_is_away_the_robot_holds_and_then_goes_on_from_there() -> None:
    robot = Robot(lambda: 2)
    player = ChunkPlayer(never_asked, submit=robot.submit)
    robot.run(player, ticks=30)
    robot.failing = True
    robot.run(player, ticks=50)
    stopped_at = len(robot.executed)
    error = player.last_error

    robot.failing = False
    robot.run(player, ticks=30)

    assert error is not None
    assert error.kind == "unavailable"
    assert player.last_error is None
    assert len(robot.executed) > stopped_at
    assert largest_jump(robot.executed) == 0


def test_asking_runs_in_a_thread_of_its_own_by_default() -> None:
    player = ChunkPlayer(lambda seen: Told(seen.request_id, np.zeros((4, 1), np.float32)))
    sent: list[float] = []

    play(player, lambda: Seen(images=[]), lambda action: sent.append(float(action[0])), 1000, lambda: len(sent) >= 3)

    assert sent == [0, 0, 0]


def test_actions_are_sent_at_the_control_rate_and_lateness_is_not_made_up_for() -> None:
    now, sent_at = 0.0, []
    player = ChunkPlayer(never_asked, submit=lambda ask, seen: done(Told("", np.zeros((100, 1), np.float32))))

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    def send(action: np.ndarray) -> None:
        nonlocal now
        sent_at.append(round(now, 3))
        now += 0.07 if len(sent_at) == 2 else 0.0  # one tick takes three and a half periods

    play(player, lambda: Seen(images=[]), send, 50, lambda: len(sent_at) >= 5, clock=lambda: now, sleep=sleep)

    assert sent_at == [0.02, 0.04, 0.11, 0.13, 0.15]


def done(told: Told) -> Future[Told]:
    answer: Future[Told] = Future()
    answer.set_result(told)
    return answer
