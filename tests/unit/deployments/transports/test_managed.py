"""Policies are loaded and unloaded while the application runs, around a Serve in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from configs.base import ConfigError
from configs.policies import AnyPolicy, BasePolicy, ChunkPolicy
from configs.serving import ServeConfig
from deployments.errors import PolicyError
from deployments.transports.loaded import Found, Notice
from deployments.transports.managed import ManagedPolicies
from deployments.transports.policies import ServedPolicies

FILE = {"kind": "chunks", "name": "arm", "checkpoint": "made-up"}
NEW = ChunkPolicy(name="new", checkpoint="made-up")
OTHER = NEW.model_copy(update={"checkpoint": "another"})


class Cluster:
    """Serve, and the ingress processes that it tells things."""

    def __init__(self) -> None:
        self.running: dict[str, Found] = {}
        self.policies: dict[str, AnyPolicy] = {}
        self.ingresses: list[Ingress] = []
        self.deleted: list[str] = []
        self.looks = 0
        self.prepares, self.answers = asyncio.Event(), asyncio.Event()
        self.prepares.set()
        self.answers.set()
        self.problem: Exception | None = None
        self.silent = False
        self.now_s = 1000.0

    def clock(self) -> float:
        return self.now_s

    async def applications(self) -> dict[str, Found]:
        self.looks += 1
        if self.silent:
            raise PolicyError("unavailable", "nobody at home")
        return dict(self.running)

    async def load(self, policy: AnyPolicy) -> None:
        await self.prepares.wait()
        if self.problem is not None:
            raise self.problem
        self.running[policy.name], self.policies[policy.name] = Found("loading"), policy

    async def delete(self, name: str) -> None:
        self.deleted.append(name)
        if name in self.running:
            self.running[name] = Found("unloading")

    async def served(self, name: str) -> AnyPolicy | None:
        await self.answers.wait()
        return self.policies.get(name)

    def handle(self, name: str) -> str:
        return f"handle of {name}"

    async def tell(self, notice: Notice) -> None:
        for ingress in self.ingresses:
            ingress.managed.heard(notice)

    async def drain(self, name: str, limit_s: float) -> None:
        await asyncio.gather(*(ingress.managed.drained(name, limit_s) for ingress in self.ingresses))

    def becomes(self, name: str, state: Any, message: str = "") -> None:
        self.running[name] = Found(state, message)


class Ingress:
    """One ingress process."""

    def __init__(self, cluster: Cluster) -> None:
        config = ServeConfig.parse({"policies": [FILE], "http": {"manage_policies": True}})
        self.served = ServedPolicies(config)
        self.connected: dict[str, Any] = {}
        self.refuses: Exception | None = None
        self.managed = ManagedPolicies(
            self.served, cluster, self._connect, self._disconnect, clock=cluster.clock, look_s=0.001
        )
        cluster.ingresses.append(self)

    def _connect(self, policy: AnyPolicy, handle: Any) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.connected[policy.name] = handle

    def _disconnect(self, name: str) -> None:
        self.connected.pop(name, None)

    def state(self, name: str = "new") -> str | None:
        entry = self.managed.entries().get(name)
        return None if entry is None else entry.state

    async def looks(self) -> None:
        await self.managed.look(0.0)

    async def finds(self, name: str) -> BasePolicy:
        return await self.served.chosen(name, lambda policy: policy.acts)

    async def ready(self, cluster: Cluster, policy: AnyPolicy = NEW) -> None:
        """Has the policy loaded."""
        await self.managed.put(policy)
        await until(lambda: policy.name in cluster.running)
        cluster.becomes(policy.name, "ready")
        cluster.now_s += 1
        await self.looks()


async def until(condition: Callable[[], bool]) -> None:
    """Lets everything run that can run."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # other tasks of this loop bring it about
            await asyncio.sleep(0)


@pytest.fixture
async def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
async def ingress(cluster: Cluster) -> Ingress:
    return Ingress(cluster)


async def test_a_policy_is_loading_until_serve_has_started_it_and_then_answers(
    cluster: Cluster, ingress: Ingress
) -> None:
    assert (await ingress.managed.put(NEW)).state == "loading"
    with pytest.raises(PolicyError, match="no policy 'new'"):
        await ingress.finds("new")
    await until(lambda: "new" in cluster.running)
    cluster.becomes("new", "ready")
    cluster.now_s += 1
    await ingress.looks()

    assert await ingress.finds("new") is NEW
    assert ingress.connected == {"new": "handle of new"}
    assert (await ingress.managed.put(NEW)).state == "ready"


async def test_a_name_that_something_else_has_is_a_conflict(cluster: Cluster, ingress: Ingress) -> None:
    await ingress.ready(cluster)
    of_the_file = ChunkPolicy(name="arm", checkpoint="made-up")
    for refused, words in ((OTHER, "'new' is ready as something else"), (of_the_file, "one of the configuration file")):
        with pytest.raises(PolicyError, match=words) as conflict:
            await ingress.managed.put(refused)
        assert (conflict.value.kind, conflict.value.http_status) == ("conflict", 409)
    assert await ingress.finds("new") is NEW


async def test_every_ingress_process_learns_of_it_also_one_that_was_not_told(
    cluster: Cluster, ingress: Ingress
) -> None:
    second = Ingress(cluster)
    await ingress.ready(cluster)
    late = Ingress(cluster)  # its first request is for the new policy

    assert await second.finds("new") is NEW
    assert await late.finds("new") is NEW
    assert late.connected == {"new": "handle of new"}


async def test_looks_at_serve_are_shared_and_names_that_nobody_has_do_not_multiply_them(
    cluster: Cluster, ingress: Ingress
) -> None:
    async def refused() -> None:
        with pytest.raises(PolicyError, match="no policy 'none'; served: arm"):
            await ingress.finds("none")

    await asyncio.gather(*(refused() for _ in range(100)))
    await refused()
    assert cluster.looks == 1


async def test_a_load_that_serve_gives_up_tells_its_reason_leaves_nothing_behind_and_may_be_tried_again(
    cluster: Cluster, ingress: Ingress
) -> None:
    second = Ingress(cluster)
    await ingress.managed.put(NEW)
    await until(lambda: "new" in cluster.running)
    cluster.becomes("new", "failed", "FileNotFoundError: no such checkpoint")
    cluster.now_s += 1
    await until(lambda: cluster.deleted == ["new"])

    for each in (ingress, second):
        assert each.managed.entries()["new"].message == "FileNotFoundError: no such checkpoint"
        assert each.state() == "failed"
    assert (await ingress.finds("arm")).name == "arm"
    with pytest.raises(PolicyError, match="'new' is still being removed"):
        await ingress.managed.put(OTHER)
    del cluster.running["new"]
    await ingress.looks()
    assert ingress.state() == "failed"
    assert (await ingress.managed.put(OTHER)).state == "loading"


async def test_what_cannot_even_be_begun_tells_its_reason(cluster: Cluster, ingress: Ingress) -> None:
    cluster.problem = ConfigError("model folder /none does not exist")
    await ingress.managed.put(NEW)
    await until(lambda: ingress.state() == "failed")
    assert ingress.managed.entries()["new"].message == "model folder /none does not exist"


async def test_a_policy_that_finds_no_room_fails_at_its_deadline_with_what_serve_says(
    cluster: Cluster, ingress: Ingress
) -> None:
    await ingress.managed.put(NEW)
    await until(lambda: "new" in cluster.running)
    cluster.becomes("new", "loading", "no node has 1000 CPUs")
    cluster.now_s += NEW.replicas.start_deadline_s
    await until(lambda: cluster.deleted == ["new"])
    assert (
        ingress.managed.entries()["new"].message
        == "it was not ready within replicas.start_deadline_s. no node has 1000 CPUs"
    )


async def test_a_policy_that_cannot_act_as_it_says_fails_with_the_reason(cluster: Cluster, ingress: Ingress) -> None:
    ingress.refuses = ConfigError("safety.max_step has 3 numbers for 7 axes")
    await ingress.ready(cluster)
    await until(lambda: ingress.state() == "failed")
    assert "3 numbers for 7 axes" in ingress.managed.entries()["new"].message


async def test_unloading_refuses_new_requests_everywhere_at_once_and_waits_for_those_under_way(
    cluster: Cluster, ingress: Ingress
) -> None:
    second = Ingress(cluster)
    await ingress.ready(cluster)
    await second.looks()
    with second.served.under_way(NEW):
        assert (await ingress.managed.delete("new")).state == "unloading"
        for each in (ingress, second):
            with pytest.raises(PolicyError, match="no policy 'new'; served: arm") as refusal:
                await each.finds("new")
            assert refusal.value.kind == "not_found"
        for _ in range(20):  # everything runs that can run
            await asyncio.sleep(0)
        assert not cluster.deleted
        assert "new" in second.connected
    await until(lambda: cluster.deleted == ["new"])
    cluster.now_s += 1
    await second.looks()
    assert second.state() == "unloading"
    del cluster.running["new"]
    cluster.now_s += 1
    await second.looks()
    assert second.state() is None
    assert second.connected == {}


async def test_an_unloaded_name_is_free_for_another_configuration(cluster: Cluster, ingress: Ingress) -> None:
    await ingress.ready(cluster)
    await ingress.managed.delete("new")
    with pytest.raises(PolicyError, match="still being removed"):
        await ingress.managed.put(OTHER)
    await until(lambda: cluster.deleted == ["new"])
    del cluster.running["new"]
    await ingress.ready(cluster, OTHER)
    assert await ingress.finds("new") is OTHER


async def test_only_what_was_loaded_can_be_unloaded(cluster: Cluster, ingress: Ingress) -> None:
    for name, kind in (("arm", "conflict"), ("none", "not_found")):
        with pytest.raises(PolicyError) as refusal:
            await ingress.managed.delete(name)
        assert refusal.value.kind == kind
    assert not cluster.deleted


async def test_what_is_still_being_prepared_cannot_be_unloaded_yet(cluster: Cluster, ingress: Ingress) -> None:
    cluster.prepares.clear()
    await ingress.managed.put(NEW)
    with pytest.raises(PolicyError, match="being prepared"):
        await ingress.managed.delete("new")
    cluster.prepares.set()
    await until(lambda: "new" in cluster.running)
    assert (await ingress.managed.delete("new")).state == "unloading"


async def test_an_unloading_that_comes_to_nothing_is_taken_back(cluster: Cluster, ingress: Ingress) -> None:
    await ingress.ready(cluster)
    ingress.managed.heard(Notice("new", "unloading", NEW))  # from a process that died before it went on
    cluster.now_s += 1
    await ingress.looks()
    assert ingress.state() == "unloading"
    cluster.now_s += 3600
    await ingress.looks()
    assert await ingress.finds("new") is NEW


async def test_a_policy_that_is_unloaded_while_its_replicas_are_asked_is_not_taken_up(
    cluster: Cluster, ingress: Ingress
) -> None:
    await ingress.ready(cluster)
    late = Ingress(cluster)
    cluster.answers.clear()
    looking = asyncio.ensure_future(late.looks())
    await until(lambda: late.state() == "loading")
    await ingress.managed.delete("new")
    cluster.answers.set()
    await looking
    assert late.state() == "unloading"
    assert late.connected == {}


async def test_a_policy_whose_replicas_are_replaced_stays(cluster: Cluster, ingress: Ingress) -> None:
    await ingress.ready(cluster)
    cluster.becomes("new", "loading")
    cluster.now_s += 1
    await ingress.looks()
    assert await ingress.finds("new") is NEW


async def test_while_serve_is_silent_everything_stays_and_nothing_is_begun(cluster: Cluster, ingress: Ingress) -> None:
    await ingress.ready(cluster)
    cluster.silent = True
    cluster.now_s += 1
    assert await ingress.finds("new") is NEW
    with pytest.raises(PolicyError, match="no policy 'none'"):
        await ingress.finds("none")
    for change in (ingress.managed.put(OTHER), ingress.managed.delete("new")):
        with pytest.raises(PolicyError, match="nobody at home"):
            await change
    assert await ingress.finds("new") is NEW


async def test_the_watch_takes_up_what_happens_in_serve(cluster: Cluster, ingress: Ingress) -> None:
    watching = asyncio.create_task(ingress.managed.watch())
    try:
        await ingress.managed.put(NEW)
        await until(lambda: "new" in cluster.running)
        cluster.becomes("new", "ready")
        cluster.now_s += 1
        await until(lambda: ingress.state() == "ready")
    finally:
        watching.cancel()
