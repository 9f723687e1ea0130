"""An engine in its replica's process: loaded, brought to the versions asked for, watched, and ended. No Ray."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Generic, TypeVar

from configs.policies import BasePolicy
from deployments.engines.base import Engine
from deployments.replicas.updates import WeightUpdates
from deployments.storage.owned import OwnedFolder
from deployments.weights.store import WeightStore

logger = logging.getLogger("ray.serve")

EngineT = TypeVar("EngineT", bound=Engine)

RETIRE_AFTER_S = 0.5  # what was running has been told and gets its failures out
CLOSE_LIMIT_S = 15.0


class HostedEngine(Generic[EngineT]):
    """Owner: a replica, of which it is all that does not depend on the kind of engine."""

    def __init__(
        self,
        engine: EngineT,
        policy: BasePolicy,
        on_version: Callable[[int], object] = lambda version: None,
        end_process: Callable[[int], object] = os._exit,
    ) -> None:
        """`on_version`: told each weight version that is taken up. `end_process`: ends this process at once with an
        exit code."""
        self.engine = engine
        self._policy = policy
        self._on_version = on_version
        self._end_process = end_process
        self._store = WeightStore(policy.weights_root) if policy.weights_root else None
        self._cache = OwnedFolder("weights", _same_disk(policy.weights_root))
        self._updates = WeightUpdates(engine, self._store, self._cache.path, policy.name, self._updated)
        self._following: asyncio.Task[None] | None = None
        self._retiring: asyncio.Task[None] | None = None

    async def start(self, warm_up: Callable[[], Awaitable[None]] | None = None) -> None:
        """Loads the engine, warms it up, and brings it to the newest version of its store."""
        await self.engine.load()
        if warm_up is not None:
            await warm_up()
        latest = self._store.latest() if self._store else None
        if latest is not None:
            await self.ensure_version(latest, self._policy.replicas.start_deadline_s)
        if self._policy.follow and self._store is not None:
            self._following = asyncio.create_task(self._follow(self._store))
        self.engine.breaker.listen(self._retire)

    async def ensure_version(self, version: int, deadline_s: float = 60.0) -> int:
        """Returns the engine's version once it is at least `version`. Raises PolicyError; see `WeightUpdates.reach`."""
        return await self._updates.reach(version, deadline_s)

    def _updated(self, version: int, milliseconds: float) -> None:
        self._on_version(version)
        logger.debug("weights %d in %.1f ms", version, milliseconds)

    async def _follow(self, store: WeightStore) -> None:
        """Consumes: the versions of the store. Waits for: `follow_period_s`, then the engine. Unblocked by: time. Stops
        when: `close`. A version that cannot be taken up is logged, and the next look tries again."""
        while True:
            await asyncio.sleep(self._policy.follow_period_s)
            try:
                latest = await asyncio.to_thread(store.latest)
                if latest is not None and latest > self.engine.version:
                    await self.ensure_version(latest)
            except Exception:
                logger.exception("policy %s could not follow its weights_root", self._policy.name)

    def _retire(self, reason: str) -> None:
        """Ends this process: Serve asks a replica that calls itself unhealthy twice more, health_period_s apart, before
        it starts another, but replaces one that is gone at once."""
        logger.error("the replica ends: %s", reason)
        self._retiring = asyncio.get_running_loop().create_task(self._end())

    async def _end(self) -> None:
        await asyncio.sleep(RETIRE_AFTER_S)
        try:
            await asyncio.wait_for(self.close(), CLOSE_LIMIT_S)
        except Exception:
            logger.exception("the engine could not be closed")
        finally:
            self._end_process(1)

    async def close(self) -> None:
        """May be called twice."""
        self._cache.remove()  # first: Serve may kill a replica whose engine takes long to end
        if self._following is not None:
            self._following.cancel()
        await self.engine.close()


def _same_disk(root: str | None) -> Path | None:
    """A folder on the store's own file system, where a version is brought by hard links instead of copies."""
    if root is None or "://" in root:
        return None
    parent = Path(root).parent
    return parent if os.access(parent, os.W_OK) else None
