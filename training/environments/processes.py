"""Where the environments of a run play: in their worker, or in processes of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Literal

from configs.rollouts import EnvConfig
from envs import registry
from envs.base import Env
from envs.bridges import remote
from envs.bridges.child import EnvProcess
from training.environments.packages import interpreter_of

Isolation = Literal["none", "thread", "process"]


def isolation_of(env: EnvConfig) -> Isolation:
    """What the settings say, or else the environment's class, which is loaded only then. Raises UnknownEnvironment."""
    if env.isolation is not None:
        return env.isolation
    if env.elsewhere:
        return "process"
    cls = registry.load(env.name)
    if cls.isolated:
        return "process"
    return "thread" if cls.blocking else "none"


def opened(env: EnvConfig, settings: Mapping[str, Any]) -> Env:
    """One environment for a caller that plays it alone and may wait for its calls; `close` ends its process, where it
    has one. Raises what making it raises."""
    if isolation_of(env) == "process":
        return remote.started(env.name, settings, interpreter_of(env), env.step_timeout_s)
    return registry.make(env.name, **settings)


class EnvProcesses:
    """The processes in which a rollout worker's environments play: at most `most`, each for one episode at a time.

    An episode waits in `take` for a free one. A process is started when it is first needed, plays any number of
    episodes, and is replaced when it is lost. They end with `close`, and with this process however that ends.
    """

    def __init__(self, most: int, python: str | None = None, start: Callable[..., EnvProcess] = EnvProcess) -> None:
        self._room = asyncio.Semaphore(most)
        self._python, self._start = python, start
        self._idle: list[EnvProcess] = []
        self._taken: set[EnvProcess] = set()

    @classmethod
    def of(cls, env: EnvConfig) -> EnvProcesses | None:
        """None where environments need no process of their own."""
        return cls(env.processes, interpreter_of(env)) if isolation_of(env) == "process" else None

    async def take(self) -> EnvProcess:
        """Waits for: a free process. Unblocked by: `give_back`. Raises EnvUsageError for one that cannot be started.

        Starting one holds the loop for the milliseconds of a fork; what it then loads is waited for by its first call.
        """
        await self._room.acquire()
        try:
            process = self._usable() or self._start(self._python)
        except BaseException:
            self._room.release()
            raise
        self._taken.add(process)
        return process

    def _usable(self) -> EnvProcess | None:
        while self._idle:
            process = self._idle.pop()
            if process.usable:
                return process
            process.kill()  # it ended between two episodes; what it had started may still run
        return None

    def give_back(self, process: EnvProcess) -> None:
        """After an episode. One that still owes an answer, or has ended, is killed."""
        self._taken.discard(process)
        if process.usable:
            self._idle.append(process)
        else:
            process.kill()
        self._room.release()

    def close(self) -> None:
        """Ends all processes, those that play too. Waits for: their end."""
        processes = [*self._idle, *self._taken]
        self._idle.clear()
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
