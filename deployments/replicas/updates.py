"""Brings a replica's engine to the weight versions that requests ask for. No Ray."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from deployments.engines.base import Engine
from deployments.errors import PolicyError
from deployments.weights.manifest import WeightsError, WeightsTimeout
from deployments.weights.store import WeightStore

logger = logging.getLogger("ray.serve")

LOOK_S = 0.1  # how long the store is watched before the callers are counted again


class WeightUpdates:
    """Updates are this object's own task, never a caller's: callers wait beside it, each with its own deadline, and
    leave without touching it.

    Consumes: the versions that callers wait for. Waits for: the store to publish one, then the engine to load it.
    Unblocked by: `reach`. Stops when: nobody waits any more; an update that has begun is finished before.
    """

    def __init__(
        self,
        engine: Engine,
        store: WeightStore | None,
        cache: Path,
        policy: str,
        on_update: Callable[[int, float], None] = lambda version, ms: None,
    ) -> None:
        """`cache`: a folder of this replica's own for fetched versions. `on_update(version, milliseconds)`."""
        self._engine = engine
        self._store = store
        self._cache = cache
        self._policy = policy
        self._on_update = on_update
        self._waiting: dict[asyncio.Future[None], int] = {}  # -> version
        self._task: asyncio.Task[None] | None = None

    async def reach(self, version: int, deadline_s: float) -> int:
        """Returns the engine's version once it is at least `version`.

        Raises PolicyError: "stale_weights" when the version does not arrive within `deadline_s` seconds or cannot be
        loaded, "engine_failed" when the update broke the engine.
        """
        if self._engine.version >= version:
            return self._engine.version
        if self._store is None:
            raise PolicyError(
                "stale_weights",
                f"weight version {version} was asked for, but policy {self._policy!r} has no weights_root",
            )
        reached = asyncio.get_running_loop().create_future()
        self._waiting[reached] = version
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(self._store))
        try:
            async with asyncio.timeout(deadline_s):
                await reached
        except TimeoutError:
            message = (
                f"no weight version >= {version} within {deadline_s:g} s (the replica has {self._engine.version}): "
                "is the learner alive, and does it publish to this replica's weights_root?"
            )
            raise PolicyError("stale_weights", message) from None
        finally:
            self._waiting.pop(reached, None)
        return self._engine.version

    async def _run(self, store: WeightStore) -> None:
        while self._waiting:
            wanted = min(self._waiting.values())  # a version that never comes keeps nobody from another
            try:
                await self._update(store, wanted)
            except WeightsTimeout:
                continue  # not published yet
            except (PolicyError, WeightsError) as error:
                failure = error if isinstance(error, PolicyError) else PolicyError("stale_weights", str(error))
                self._tell(wanted, failure)
            except Exception as error:  # a defect, or the disk's: told to all, so that nobody waits in vain
                logger.exception("the update to weight version %d failed", wanted)
                self._tell(max(self._waiting.values(), default=wanted), PolicyError("stale_weights", repr(error)))
            else:
                self._tell(self._engine.version, None)

    async def _update(self, store: WeightStore, wanted: int) -> None:
        if self._engine.version >= wanted:
            return
        began = time.perf_counter()
        fetched = await asyncio.to_thread(store.fetch_at_least, wanted, LOOK_S, self._cache)
        await self._engine.update(fetched.folder, fetched.manifest.version)
        self._on_update(self._engine.version, (time.perf_counter() - began) * 1e3)

    def _tell(self, up_to: int, failure: PolicyError | None) -> None:
        for reached, version in list(self._waiting.items()):
            if version <= up_to and not reached.done():
                if failure is None:
                    reached.set_result(None)
                else:
                    reached.set_exception(failure)
                del self._waiting[reached]
