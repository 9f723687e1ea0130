"""Policies loaded and unloaded while the application runs: what was asked for, and what Serve has made of it. No Ray.

Serve is the register: each loaded policy is an application of its own, and whoever looks finds it there. Between two
looks the ingress processes tell each other what they begin.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from configs.base import UserError
from configs.policies import AnyPolicy
from deployments.errors import PolicyError
from deployments.transports.loaded import Entry, Found, Notice, Serving
from deployments.transports.policies import ServedPolicies

logger = logging.getLogger("ray.serve")

LOOK_S = 1.0  # seconds between two looks at Serve while something changes, and at least
REST_S = 10.0  # while nothing does
LOOK_LIMIT_S = 5.0
BEYOND_DRAIN_S = 60.0  # an unloading that takes so much longer than its drain has failed
MOST_LOADED = 64


class ManagedPolicies:
    """Keeps `served` as Serve says. One object per ingress process; `connect` and `disconnect` are told which policies
    come and go, and `clock` is in seconds."""

    def __init__(
        self,
        served: ServedPolicies,
        serving: Serving,
        connect: Callable[[AnyPolicy, Any], None],
        disconnect: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        look_s: float = LOOK_S,
    ) -> None:
        self._served, self._serving = served, serving
        self._connect, self._disconnect = connect, disconnect
        self._clock, self._look_s = clock, look_s
        self._entries: dict[str, Entry] = {}
        self._changing, self._looking = asyncio.Lock(), asyncio.Lock()
        self._looked_s = float("-inf")
        self._woken = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        served.look = self._look_for

    def entries(self) -> Mapping[str, Entry]:
        """By the policy's name."""
        return self._entries

    async def put(self, policy: AnyPolicy) -> Entry:
        """Begins to load the policy, unless it is loaded already or being loaded with the same configuration. Raises
        PolicyError: "conflict" for a name that something else has, "unavailable" when Serve does not answer."""
        name = policy.name
        async with self._changing:
            self._refuse_file(name)
            await self.look(0.0)
            entry = self._entries.get(name)
            if entry is not None and entry.state in ("loading", "ready") and entry.policy == policy:
                return entry
            self._refuse_taken(name, entry)
            await self._tell(Notice(name, "loading", policy))
            self._start(self._load(policy))
            return self._entries[name]

    async def delete(self, name: str) -> Entry:
        """Refuses new requests to the policy from now on, and begins to unload it once those under way have ended.
        Raises PolicyError: "not_found", "conflict" for a policy of the file, "unavailable"."""
        async with self._changing:
            self._refuse_file(name)
            await self.look(0.0)
            entry = self._entries.get(name)
            if entry is None:
                raise PolicyError("not_found", f"no policy {name[:80]!r} is loaded; served: {self._served.names()}")
            if entry.state == "loading" and not entry.in_serve:
                raise PolicyError("conflict", f"the policy {name!r} is being prepared: unload it in a few seconds")
            if entry.state != "unloading":
                await self._tell(Notice(name, "unloading", entry.policy))
                self._start(self._unload(name, _drain_s(entry.policy)))
            return self._entries[name]

    def heard(self, notice: Notice) -> None:
        """What a process has begun, this one included. Hearing it twice changes nothing."""
        name, known = notice.name, self._entries.get(notice.name)
        match notice.state:
            case "loading":
                if known is None or known.state == "failed":
                    limit_s = notice.policy.replicas.start_deadline_s if notice.policy is not None else float("inf")
                    self._entries[name] = Entry("loading", notice.policy, until_s=self._clock() + limit_s)
            case "failed":
                self._forget(name)
                self._entries[name] = Entry("failed", notice.policy, notice.message)
            case "unloading":
                self._served.close(name)
                entry = self._entries.setdefault(name, Entry("unloading", notice.policy))
                entry.state = "unloading"
                entry.until_s = self._clock() + _drain_s(notice.policy) + BEYOND_DRAIN_S
        self._woken.set()

    async def drained(self, name: str, limit_s: float) -> bool:
        """Waits until this process has no request to the policy under way; whether that was within `limit_s`."""
        return await self._served.drained(name, limit_s)

    async def look(self, older_than_s: float | None = None) -> None:
        """Brings this process to what Serve says, unless a look began since this call, or less than `older_than_s` (by
        default `look_s`) before it. Raises PolicyError("unavailable")."""
        old_s = self._clock() - (self._look_s if older_than_s is None else older_than_s)
        async with self._looking:
            if self._looked_s > old_s:
                return
            self._looked_s = self._clock()
            try:
                async with asyncio.timeout(LOOK_LIMIT_S):
                    found = await self._serving.applications()
                    for name, application in found.items():
                        await self._saw(name, application)
            except TimeoutError as error:
                raise PolicyError("unavailable", "Serve does not say which policies are loaded: try again") from error
            for name in self._entries.keys() - found.keys():
                self._missed(name)

    async def look_quietly(self, older_than_s: float | None = None) -> None:
        """As `look`; a failure is logged, and the next look may do better."""
        try:
            await self.look(older_than_s)
        except PolicyError as error:
            logger.warning("loaded policies: %s", error)

    async def _look_for(self, name: str) -> None:
        """Before a request to that name is refused: at once where it is being loaded, and may be ready elsewhere."""
        entry = self._entries.get(name)
        await self.look_quietly(0.0 if entry is not None and entry.state == "loading" else None)

    async def watch(self) -> None:
        """Consumes: what Serve says of the loaded policies. Waits for: `look_s` while something changes, else REST_S.
        Unblocked by: `heard`, and time. Stops when: it is cancelled."""
        while True:
            changing = any(entry.state in ("loading", "unloading") for entry in self._entries.values())
            try:
                async with asyncio.timeout(self._look_s if changing else REST_S):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            try:
                await self.look_quietly()
            except Exception:
                logger.exception("a look at the loaded policies failed; the next one is tried")

    async def _load(self, policy: AnyPolicy) -> None:
        """Until the policy is ready, has failed or is unloaded. What has failed is taken out of Serve: its reason
        remains."""
        name = policy.name
        try:
            await self._serving.load(policy)
            while (entry := self._entries.get(name)) is not None and entry.state == "loading":
                await asyncio.sleep(self._look_s)
                await self.look_quietly()
            reason = entry.message if entry is not None and entry.state == "failed" else None
        except UserError as error:
            reason = str(error)
        except Exception as error:
            logger.exception("policy %s could not be loaded", name)
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        if reason is not None:
            await self._tell(Notice(name, "failed", policy, reason))
            await self._serving.delete(name)

    async def _unload(self, name: str, drain_s: float) -> None:
        await self._serving.drain(name, drain_s)
        await self._serving.delete(name)
        self._woken.set()

    async def _saw(self, name: str, found: Found) -> None:
        if self._served.is_of_file(name):
            return
        entry = self._entries.setdefault(name, Entry("loading"))
        late = self._clock() >= entry.until_s
        match entry.state, found.state:
            case ("unloading", _) if not late or found.state == "unloading":
                pass
            case ("failed", "failed" | "unloading"):
                pass  # what is left of it is being deleted
            case ("loading", "unloading"):
                return  # what is left of an earlier one
            case (_, "ready"):
                await self._take_up(name, entry)
            case ("ready", "unloading"):
                self._served.close(name)
                entry.state = "unloading"
            case ("ready", _):
                pass  # its replicas are being replaced
            case (_, "failed"):
                entry.state, entry.message = "failed", found.message
            case ("loading", "loading") if late:
                entry.state = "failed"
                entry.message = f"it was not ready within replicas.start_deadline_s. {found.message}".strip()
            case ("failed", "loading"):
                pass  # too late: it is being deleted
        entry.in_serve = True

    async def _take_up(self, name: str, entry: Entry) -> None:
        if entry.state == "ready":
            return
        before = entry.state
        policy = entry.policy or await self._serving.served(name)
        if policy is None or entry.state != before:
            return  # not answered, and asked again at the next look; or it is being unloaded since
        try:
            self._connect(policy, self._serving.handle(name))
        except UserError as error:
            entry.state, entry.message = "failed", str(error)
            return
        self._served.add(policy)
        entry.state, entry.policy, entry.message = "ready", policy, ""

    def _missed(self, name: str) -> None:
        """Serve has no application of that name."""
        entry = self._entries[name]
        if entry.state == "failed":
            entry.in_serve = False  # its reason stays
        elif entry.state == "loading" and not entry.in_serve:
            if self._clock() >= entry.until_s:
                entry.state, entry.message = "failed", "it was not begun within replicas.start_deadline_s"
        else:
            self._forget(name)

    def _forget(self, name: str) -> None:
        self._entries.pop(name, None)
        self._served.remove(name)
        self._disconnect(name)

    def _refuse_file(self, name: str) -> None:
        if self._served.is_of_file(name):
            raise PolicyError("conflict", f"the policy {name!r} is one of the configuration file: it stays as it is")

    def _refuse_taken(self, name: str, entry: Entry | None) -> None:
        """Unless the name is free, or of a load that has failed and left nothing."""
        if entry is None:
            if len(self._entries) >= MOST_LOADED:
                raise PolicyError("conflict", f"{MOST_LOADED} policies are loaded or have failed: unload one first")
        elif entry.state in ("loading", "ready"):
            raise PolicyError("conflict", f"the policy {name!r} is {entry.state} as something else: unload it first")
        elif entry.state == "unloading" or entry.in_serve:
            raise PolicyError("conflict", f"the policy {name!r} is still being removed: try again in a few seconds")

    async def _tell(self, notice: Notice) -> None:
        self.heard(notice)
        try:
            await self._serving.tell(notice)
        except PolicyError as error:
            logger.warning("not every ingress heard of policy %s, and will see it in Serve: %s", notice.name, error)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception:
        logger.exception("loading or unloading a policy failed")


def _drain_s(policy: AnyPolicy | None) -> float:
    return 20.0 if policy is None else policy.replicas.drain_s
