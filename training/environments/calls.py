"""Calls of an environment: what it raises or returns that cannot be used becomes EnvCallFailed, and hangs are seen."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from envs.base import Env, Observation, StepResult
from envs.bridges.child import EnvProcess
from envs.bridges.remote import RemoteEnv
from envs.bridges.wire import EnvLost
from training.checks.episodes import Books
from training.environments.processes import EnvProcesses
from training.environments.threads import CallThread
from training.types import Task

logger = logging.getLogger("rayward")
Result = TypeVar("Result")
CHAT_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Noted:
    """The environment's account of one episode, what losing pays there, where it says so, and with which weights the
    run adds up the reward's named parts (None: the environment's own rewards)."""

    books: Books = field(default_factory=Books)
    failure_return: float | None = None
    weights: Mapping[str, float] | None = None


@dataclass
class Hooks:
    """What an observer sees of the episodes: counters by reason, and which environment call runs since when."""

    counts: Counter[str] = field(default_factory=Counter)
    env_call: dict[int, tuple[str, float]] = field(default_factory=dict)  # key -> (what, since, monotonic s)
    clock: Callable[[], float] = time.monotonic
    total: Counter[str] | None = None  # of all groups of a worker; counted along
    books: dict[tuple[Task, int, int], Noted] = field(
        default_factory=dict
    )  # (task, sibling, attempt) -> of its episode

    def count(self, reason: str) -> None:
        self.counts[reason] += 1
        if self.total is not None:
            self.total[reason] += 1


class EnvCallFailed(Exception):
    """An environment raised, hung or returned what nobody can use; says what was called."""


class EnvCalls:
    """One environment of one episode, from `make` to `close`.

    Its calls run in the caller's loop and are visible to the watchdog while they run; those of an environment that
    says that it blocks (`Env.blocking`) run in a thread of its own, so that other episodes go on, and end after
    `timeout_s`. A thread that does not return is left behind: Python cannot end it. With `processes` the environment
    is in one of them, the thread waits for its answers, and a process that does not answer in time is killed.
    """

    def __init__(
        self,
        name: str,
        seed: int,
        hooks: Hooks,
        blocking: bool,
        timeout_s: float,
        processes: EnvProcesses | None = None,
    ) -> None:
        self._name, self._seed, self._hooks = name, seed, hooks
        self._timeout_s = timeout_s
        self._thread = CallThread(f"{name}-{seed}") if blocking or processes is not None else None
        self._processes = processes
        self._process: EnvProcess | None = None
        self._env: Env | None = None
        self._hung = False
        self.books = Books()

    async def make(self, make: Callable[[], Env], settings: Mapping[str, Any]) -> Env:
        """`make` makes it here; in a process it is made by its name, with `settings`. Waits for: a free process, which
        `timeout_s` does not count. Raises EnvCallFailed."""
        if self._processes is not None:
            self._process = process = await self._taken(self._processes)
            self._env = await self._call("make", lambda: RemoteEnv(process, self._name, settings))
        else:
            self._env = await self._call("make", make)
        return self._env

    async def _taken(self, processes: EnvProcesses) -> EnvProcess:
        try:
            return await processes.take()
        except Exception as error:
            raise EnvCallFailed(f"{self._name} make, seed {self._seed}: {type(error).__name__}: {error}") from error

    async def reset(self) -> Observation:
        """Raises EnvCallFailed."""
        return await self._call("reset", lambda: checked_observation(self._made.reset(self._seed)))

    async def step(self, text: str) -> StepResult:
        """The reward is a finite float. Raises EnvCallFailed."""
        result = await self._call("step", lambda: checked_result(self._made.step(text)))
        self.books.note(result)
        return result

    async def opponent_observation(self) -> Observation | None:
        """What the other player of a game for two sees when it is to move, else None. Raises EnvCallFailed."""

        def checked() -> Observation | None:
            observation = self._made.opponent_observation()
            return None if observation is None else checked_observation(observation)

        return await self._call("opponent_observation", checked)

    async def opponent_step(self, text: str) -> StepResult:
        """The first player's result of the other player's move. Raises EnvCallFailed."""
        result = await self._call("opponent_step", lambda: checked_result(self._made.opponent_step(text)))
        self.books.note_reply(result)
        if result.info.get("illegal"):
            self._hooks.count("opponent_illegal")
        return result

    async def close(self) -> None:
        """Never raises: an episode is what was played, however its environment ends. Failures are counted."""
        try:
            if self._env is not None and not self._hung and (self._process is None or self._process.usable):
                await self._call("close", self._env.close)
        except EnvCallFailed as error:
            self._hooks.count("env_close_failed")
            logger.warning("%s (counted, and ignored: the episode was over)", error)
        finally:
            if self._thread is not None:
                if self._hung and self._process is None and self._env is not None:
                    self._thread.later(self._env.close)  # should the call return after all: what it holds is freed
                self._thread.end()
            if self._processes is not None and self._process is not None:
                if self._hung:
                    self._process.kill()  # the thread may not have begun the call yet: only this object knows of it
                self._processes.give_back(self._process)

    @property
    def _made(self) -> Env:
        assert self._env is not None
        return self._env

    async def _call(self, what: str, function: Callable[[], Result]) -> Result:
        what = f"{self._name} {what}, seed {self._seed}"
        try:
            if self._thread is None:
                return self._inline(what, function)
            return await self._threaded(self._thread, what, function)
        except EnvCallFailed:
            raise
        except Exception as error:
            if isinstance(error, EnvLost):
                self._hooks.count("env_processes_lost")
            raise EnvCallFailed(f"{what}: {type(error).__name__}: {error}") from error

    def _inline(self, what: str, function: Callable[[], Result]) -> Result:
        self._hooks.env_call[id(self)] = (what, self._hooks.clock())
        try:
            return function()
        finally:
            self._hooks.env_call.pop(id(self), None)

    async def _threaded(self, thread: CallThread, what: str, function: Callable[[], Result]) -> Result:
        deadline = asyncio.timeout(self._timeout_s)
        try:
            async with deadline:
                return await thread.run(function)
        except asyncio.CancelledError:
            self._hung = self._process is not None  # nobody will take its answer: the process cannot be used again
            raise
        except TimeoutError:
            if not deadline.expired():
                raise  # the environment's own
            self._hung = True
            self._hooks.count("env_calls_hung")
            limit = f"(env.step_timeout_s is {self._timeout_s:g})"
            raise EnvCallFailed(f"{what} has not returned in time {limit}") from None


def checked_result(result: StepResult) -> StepResult:
    """The result with its reward as a finite Python float, and so the parts of it that `info["rewards"]` names. Raises
    TypeError or ValueError for one that is none."""
    if not isinstance(result, StepResult):
        raise TypeError(f"step must return a StepResult, not {type(result).__name__}")
    observation, reward = checked_observation(result.observation), finite_reward(result.reward)
    result = replace(result, observation=observation, reward=reward)
    if "rewards" not in result.info:
        return result
    parts = {str(name): finite_reward(value) for name, value in dict(result.info["rewards"]).items()}
    return replace(result, info={**result.info, "rewards": parts})


def finite_reward(reward: Any) -> float:
    """A number of any kind (also numpy's) as a finite float.

    >>> finite_reward(True), finite_reward(2)
    (1.0, 2.0)
    """
    if not (hasattr(type(reward), "__float__") or hasattr(type(reward), "__index__")):
        raise TypeError(f"the reward must be a number, got {reward!r} ({type(reward).__name__})")
    value = float(reward)
    if not math.isfinite(value):
        raise ValueError(f"the reward must be finite, got {reward!r}")
    return value


def checked_observation(observation: Observation) -> Observation:
    """The observation with an image of its own: an environment may draw the next one into the same array.

    Raises TypeError for what is no Observation or has tools that are not JSON, UnicodeEncodeError for text that no
    tokenizer can encode, ValueError for an earlier chat with unknown roles and for an image of another form.
    """
    if not isinstance(observation, Observation) or not isinstance(observation.text, str):
        raise TypeError(f"an observation must be an Observation with a text, got {observation!r:.80}")
    observation.text.encode()
    if observation.note is not None:
        observation.note.encode()
    if observation.tools:
        json.dumps([dict(tool) for tool in observation.tools], ensure_ascii=False).encode()
    for role, text in observation.earlier:
        if role not in CHAT_ROLES:
            raise ValueError(f"an earlier message must have one of the roles {', '.join(CHAT_ROLES)}, got {role!r}")
        text.encode()
    return observation if observation.image is None else replace(observation, image=_kept(observation.image))


def _kept(image: Any) -> np.ndarray:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        form = f"{list(image.shape)} {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"an image is a numpy array [height, width, 3] of uint8, got {form}")
    kept = image.copy()
    kept.flags.writeable = False
    return kept
