"""Coordinator and rollout worker of a short run in this process, called as Ray actors are: a process for each would
take longer to start than the run takes, and a fault could not be put into it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import ray

from training.rollouts.coordinator import RunCoordinator
from training.rollouts.worker import GroupPlayer

CALL_S = 120.0  # longest wait for an answer of the coordinator
TAKING_BACK_S = 5.0  # longest wait for requests to be taken back


class LocalActor:
    """`actor.method.remote(...)` awaits the method in the loop of `target` and gives a reference to its result."""

    def __init__(self, target: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._target, self._loop = target, loop

    def __getattr__(self, name: str) -> Any:
        return _Method(getattr(self._target, name), self._loop)


class _Method:
    def __init__(self, method: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._method, self._loop = method, loop

    def remote(self, *arguments: Any) -> Any:
        """Raises what the method raises."""
        running = asyncio.run_coroutine_threadsafe(self._method(*arguments), self._loop)
        return ray.put(running.result(CALL_S))


class LocalCoordinator(RunCoordinator):
    """Plays with a worker of its own process."""

    def _start_worker(self, model_folder: str, app: str) -> Any:
        return _LocalWorker(GroupPlayer(self._config.dump(), model_folder, app))


class _LocalWorker:
    """What WorkerPool asks of a worker's handle, within one loop."""

    def __init__(self, player: GroupPlayer) -> None:
        self.play, self.stuck, self.counts = _Play(player), _Call(player.stuck), _Call(player.counts)


class _Play:
    def __init__(self, player: GroupPlayer) -> None:
        self._player = player

    def remote(self, *arguments: Any) -> _Played:
        return _Played(asyncio.ensure_future(self._player.play(*arguments)))


class _Played:
    """Three results as Ray gives them: the first to be awaited, the others as references, once it is there."""

    def __init__(self, playing: asyncio.Future[Any]) -> None:
        self._playing = playing
        self._summary: asyncio.Future[Any] = asyncio.ensure_future(_first_of(playing))

    def __getitem__(self, key: Any) -> Any:
        return self._summary if key == 0 else [ray.put(part) for part in self._playing.result()[1:]]


async def _first_of(playing: asyncio.Future[Any]) -> Any:
    return (await playing)[0]


class _Call:
    def __init__(self, function: Any) -> None:
        self._function = function

    def remote(self) -> Any:
        async def call() -> Any:
            result = self._function()
            return await result if asyncio.iscoroutine(result) else result

        return call()


async def _end_others() -> None:
    """Cancels what still runs in the loop, and lets what this starts (requests are taken back) come to an end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    if started := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(started, timeout=TAKING_BACK_S)


@contextmanager
def local_coordinator(config: dict[str, Any], model: str, app: str) -> Iterator[LocalActor]:
    """A coordinator whose loop runs in a thread; all that it began is cancelled at the end."""
    ready: Future[LocalActor] = Future()
    over: Future[None] = Future()

    async def hold() -> None:
        try:
            ready.set_result(LocalActor(LocalCoordinator(config, model, app), asyncio.get_running_loop()))
        except BaseException as error:  # carried to the caller's thread
            ready.set_exception(error)
            return
        await asyncio.wrap_future(over)
        await _end_others()

    thread = threading.Thread(target=asyncio.run, args=(hold(),), name="short-run", daemon=True)
    thread.start()
    try:
        yield ready.result(CALL_S)
    finally:
        over.set_result(None)
        thread.join(CALL_S)
