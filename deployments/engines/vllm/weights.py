"""How a vLLM engine gets from one weight version to the next: pulled from a folder, or pushed by a learner.

vLLM's worker keeps one update open from `start` to `finish`. An update that is left open makes every later one fail,
and one that broke off leaves parts of two versions in the model: then the breaker trips, and the engine is not resumed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from deployments.engines.base import Breaker
from deployments.errors import PolicyError
from deployments.weights.push_steps import (
    AbortPush,
    FinishPush,
    OpenGroup,
    PushPart,
    PushStep,
    StartPush,
    TransferInfo,
)

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

logger = logging.getLogger("ray.serve")

# Exceptions reach us from vLLM's workers as text only. A worker that knows that its model is as before ends its message
# with this; whatever else goes wrong counts as half an update.
UNTOUCHED = "(the old weights stay in use)"

PULL_LIMIT_S = 600.0  # reading 140 GB from a slow disk; whatever takes longer hangs
RESUME_LIMIT_S = 30.0  # one step of the engine


class WeightCalls(Protocol):
    """What vLLM's engine does for an update, in this order."""

    async def pause(self) -> None: ...

    async def open_group(self, info: TransferInfo) -> None: ...

    async def start(self) -> None: ...

    async def receive(self, info: TransferInfo | list[TransferInfo]) -> None: ...

    async def finish(self, version: int | None) -> None: ...

    async def resume(self) -> None: ...


class VllmWeightCalls:
    """WeightCalls of a real engine."""

    def __init__(self, llm: AsyncLLM) -> None:
        self._llm = llm

    async def pause(self) -> None:
        """Freezes the scheduler between two decode steps and drops the caches of the old weights."""
        await self._llm.renderer.clear_mm_cache_async()
        # pause_generation would add a sleep of 20 ms
        await self._llm.engine_core.pause_scheduler_async(mode="keep", clear_cache=True)

    async def open_group(self, info: TransferInfo) -> None:
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        await self._llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info=info))

    async def start(self) -> None:
        await self._llm.start_weight_update()

    async def receive(self, info: TransferInfo | list[TransferInfo]) -> None:
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        await self._llm.update_weights(WeightTransferUpdateRequest(update_info=info))

    async def finish(self, version: int | None) -> None:
        await self._llm.finish_weight_update(None if version is None else str(version))

    async def resume(self) -> None:
        await self._llm.resume_generation()


class EngineWeights:
    """The weight version of one engine, and the only way to change it: one update at a time, a pull or a push.

    `workers`: GPUs that share the model. With several, an update that one worker refused may have reached another.
    """

    def __init__(
        self, calls: WeightCalls, breaker: Breaker, workers: int = 1, pull_limit_s: float = PULL_LIMIT_S
    ) -> None:
        self.version = 0
        self.calls = calls
        self.breaker = breaker
        self._workers = workers
        self._pull_limit_s = pull_limit_s
        self._updating = asyncio.Lock()
        self._push: WeightPush | None = None
        self._steps: set[asyncio.Task[None]] = set()

    @property
    def paused(self) -> bool:
        """Whether an update is on its way: no request makes progress then."""
        return self._updating.locked()

    async def pull(self, folder: Path, version: int) -> None:
        """See `Engine.update`. A cancelled pull trips the breaker: nobody knows how far the workers got."""
        async with self._updating:
            if version <= self.version:
                return
            try:
                async with asyncio.timeout(self._pull_limit_s):
                    await self.calls.pause()
                    await self.calls.start()
                    await self.calls.receive({"folder": str(folder), "version": version})
                    await self.calls.finish(version)
                    self.version = version
                    await self.calls.resume()
            except BaseException as error:
                failure = self.failure(error)
                if failure.kind == "stale_weights":
                    await self.go_on_unchanged(open_update=False)  # vLLM's worker ends an update that fails
                if not isinstance(error, Exception):
                    raise
                raise failure from error

    async def go_on_unchanged(self, open_update: bool) -> None:
        """Resumes after an update of which nothing reached the model. Raises PolicyError with the breaker tripped."""
        try:
            async with asyncio.timeout(RESUME_LIMIT_S):
                if open_update:
                    await self.calls.finish(None)
                await self.calls.resume()
        except Exception as error:
            raise self.failure(error) from error

    def failure(self, error: BaseException) -> PolicyError:
        """What became of an update that failed with `error`; trips the breaker unless the old weights are untouched."""
        if UNTOUCHED in str(error) and self._workers == 1:
            return PolicyError("stale_weights", f"vLLM could not take up the weights: {error}")
        self.breaker.trip(f"a weight update broke off half-way: {error!r}")
        return PolicyError("engine_failed", f"{self.breaker.reason}; the replica is being replaced: try again")

    async def push(self, step: PushStep) -> None:
        """One step of a push, done to its end even if the caller is cancelled. Raises PolicyError."""
        await asyncio.shield(self._own(self._do(step)))

    def _own(self, step: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(step)
        self._steps.add(task)
        task.add_done_callback(self._steps.discard)
        return task

    async def _do(self, step: PushStep) -> None:
        match step:
            case OpenGroup(info):
                try:
                    await self.calls.open_group(info)
                except Exception as error:
                    raise PolicyError("stale_weights", f"vLLM could not join the transfer group: {error!r}") from error
            case StartPush(version, deadline_s):
                if self._push is not None:  # of a learner that was restarted, perhaps: nobody will finish it
                    await self._push.abort(f"the push of version {version} began before {self._push.version} was done")
                if self.breaker.reason is not None:
                    raise PolicyError("engine_failed", self.breaker.reason)
                self._push = await WeightPush.start(self, version, deadline_s)
            case PushPart(version, info):
                await self._of(version).receive(info)
            case FinishPush(version):
                await self._of(version).finish()
            case AbortPush(version):
                await self._of(version).abort(f"the learner aborted the push of version {version}")

    def _of(self, version: int) -> WeightPush:
        if self._push is None or self._push.version != version:
            raise PolicyError("invalid_request", f"no push of version {version} was started here")
        return self._push

    async def acquire(self, deadline_s: float) -> None:
        """The right to update, held until `release`. Raises PolicyError when another update takes longer."""
        try:
            async with asyncio.timeout(deadline_s):
                await self._updating.acquire()
        except TimeoutError:
            message = f"another update of the weights took longer than the push's deadline of {deadline_s:g} s"
            raise PolicyError("stale_weights", message) from None

    def release(self) -> None:
        self._updating.release()

    def expire(self, push: WeightPush, deadline_s: float) -> None:
        reason = f"the push of version {push.version} was not finished within {deadline_s:g} s: is the learner alive?"
        self._own(push.abort(reason))


class WeightPush:
    """A version on its way in. Owns the engine's update lock from `start` until it ended: by `finish`, by `abort`, or
    by itself at its deadline. Generation is paused for as long."""

    def __init__(self, weights: EngineWeights, version: int) -> None:
        self.version = version
        self._weights = weights
        self._open = True  # vLLM's update is started and not finished
        self._touched = False  # parts of the new version are in the model
        self._ended = False
        self._deadline: asyncio.TimerHandle | None = None

    @classmethod
    async def start(cls, weights: EngineWeights, version: int, deadline_s: float) -> WeightPush:
        await weights.acquire(deadline_s)
        push = cls(weights, version)
        # The clock runs from here: a pause that hangs must end, too.
        push._deadline = asyncio.get_running_loop().call_later(deadline_s, weights.expire, push, deadline_s)
        try:
            await weights.calls.pause()
            await weights.calls.start()
        except Exception as error:
            failure = weights.failure(error)
            push._end()
            raise failure from error
        return push

    async def receive(self, info: TransferInfo | list[TransferInfo]) -> None:
        self._check_open()
        untouched_before, self._touched = not self._touched, True
        try:
            await self._weights.calls.receive(info)
        except Exception as error:
            self._open = False  # vLLM's worker ends its update when a part fails
            failure = self._weights.failure(error)
            self._touched = not (untouched_before and failure.kind == "stale_weights")
            raise failure from error
        self._check_open()

    async def finish(self) -> None:
        self._check_open()
        try:
            await self._weights.calls.finish(self.version)
            self._check_open()
            self._weights.version = max(self._weights.version, self.version)
            await self._weights.calls.resume()
        except Exception as error:
            self._touched = True
            raise self._weights.failure(error) from error
        finally:
            self._end()

    async def abort(self, reason: str) -> None:
        """Ends the push; nothing if it has ended. Parts in the model trip the breaker, before anything is awaited."""
        if self._ended:
            return
        self._ended = True
        try:
            if self._touched:
                self._weights.breaker.trip(f"a weight update broke off half-way: {reason}")
            else:
                logger.warning("%s; the old weights stay in use", reason)
                await self._weights.go_on_unchanged(self._open)
        finally:
            self._end()

    def _check_open(self) -> None:
        if self._ended:
            raise PolicyError("stale_weights", f"the push of version {self.version} has ended: start another")

    def _end(self) -> None:
        self._ended = True
        if self._deadline is not None:  # the lock is released once
            self._deadline.cancel()
            self._deadline = None
            self._weights.release()
