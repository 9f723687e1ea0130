"""The policies that one ingress process answers for now: those of its configuration file, and those loaded since."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from configs.policies import AnyPolicy, BasePolicy
from configs.serving import ServeConfig
from deployments.errors import PolicyError
from deployments.transports.http.asked import chosen

Fits = Callable[[BasePolicy], bool]


class ServedPolicies:
    """What every transport reads to find who answers. A request is under way from `under_way` on; a policy that is
    `closed` takes no new request, and is `removed` once those under way have ended."""

    def __init__(self, config: ServeConfig) -> None:
        self._file = config
        self._loaded: dict[str, AnyPolicy] = {}
        self._closed: set[str] = set()
        self._under_way: dict[str, int] = {}
        self._ended = asyncio.Event()
        self._config = config
        # Awaited before a name that is not known is refused: another ingress may have loaded it a moment ago.
        self.look: Callable[[str], Awaitable[None]] | None = None

    @property
    def config(self) -> ServeConfig:
        """The configuration with the policies that are served now."""
        return self._config

    def is_of_file(self, name: str) -> bool:
        """Whether the configuration file has a policy of that name: such a one stays as it is."""
        return any(policy.name == name for policy in self._file.policies)

    async def chosen(self, name: str | None, fits: Fits) -> BasePolicy:
        """The policy of that name; for None the only one that `fits`. Raises PolicyError("not_found").

        An unknown name means the only one that fits, too, but not where policies come and go: who asked a policy that
        was unloaded must not be answered by another one. And there a load never changes who answers callers without a
        name: the file's only one that fits comes first.
        """
        if name is not None and not self._is_open(name) and self.look is not None:
            await self.look(name)
        if not self._file.http.manage_policies:
            return chosen(self._config.policies, name, fits)
        if name is not None and not self._is_open(name):
            raise PolicyError("not_found", f"no policy {name[:80]!r}; served: {self.names()}")
        of_file = [policy for policy in self._file.policies if fits(policy)]
        alone = name is None and len(of_file) == 1
        return of_file[0] if alone else chosen(self._config.policies, name, fits)

    @contextmanager
    def under_way(self, policy: BasePolicy) -> Iterator[None]:
        """Around one request to a policy that was `chosen`. Raises PolicyError("not_found") for a policy that was
        unloaded since, also where another one has been loaded under its name: that one was not asked."""
        name = policy.name
        if not any(known is policy for known in self._config.policies):
            raise PolicyError("not_found", f"the policy {name!r} was unloaded; served: {self.names()}")
        self._under_way[name] = self._under_way.get(name, 0) + 1
        try:
            yield
        finally:
            self._under_way[name] -= 1
            if not self._under_way[name]:
                del self._under_way[name]
                self._ended.set()

    def add(self, policy: AnyPolicy) -> None:
        """From now on the policy is served. Its name is none of the file's."""
        self._loaded[policy.name] = policy
        self._closed.discard(policy.name)
        self._update()

    def close(self, name: str) -> None:
        """The loaded policy takes no new request. A name that is not loaded is no error."""
        if name in self._loaded:
            self._closed.add(name)
            self._update()

    async def drained(self, name: str, limit_s: float) -> bool:
        """Waits until no request to the policy is under way, at most `limit_s`; whether it got there."""
        try:
            async with asyncio.timeout(limit_s):
                while name in self._under_way:
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            return False
        return True

    def remove(self, name: str) -> None:
        """Forgets a loaded policy. A name that is not loaded is no error."""
        self._loaded.pop(name, None)
        self._closed.discard(name)
        self._update()

    def names(self) -> str:
        """What a caller is told who asked for something else."""
        return ", ".join(policy.name for policy in self._config.policies)

    def _is_open(self, name: str) -> bool:
        return any(policy.name == name for policy in self._config.policies)

    def _update(self) -> None:
        loaded = [policy for name, policy in self._loaded.items() if name not in self._closed]
        self._config = self._file.model_copy(update={"policies": [*self._file.policies, *loaded]})
