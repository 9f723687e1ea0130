"""Who answers a request while policies come and go, and when one of them may go."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from configs.policies import AnyPolicy, BasePolicy, ChunkPolicy
from configs.serving import ServeConfig
from deployments.errors import PolicyError
from deployments.transports.policies import ServedPolicies

ARM = {"kind": "chunks", "name": "arm", "checkpoint": "made-up"}
NEW = ChunkPolicy(name="new", checkpoint="made-up")


def served(*policies: dict[str, Any], manage: bool = True) -> ServedPolicies:
    return ServedPolicies(ServeConfig.parse({"policies": list(policies or [ARM]), "http": {"manage_policies": manage}}))


def acts(policy: BasePolicy) -> bool:
    return policy.acts


async def test_a_policy_that_is_loaded_is_found_and_one_that_is_closed_is_not() -> None:
    known = served()
    known.add(NEW)
    assert await known.chosen("new", acts) is NEW
    known.close("new")
    with pytest.raises(PolicyError, match="no policy 'new'; served: arm") as refusal:
        await known.chosen("new", acts)
    assert refusal.value.kind == "not_found"


async def test_a_caller_of_an_unknown_policy_is_not_answered_by_another_where_policies_come_and_go() -> None:
    with pytest.raises(PolicyError, match="no policy 'gone'"):
        await served().chosen("gone", acts)
    assert (await served(manage=False).chosen("gone", acts)).name == "arm"


async def test_a_load_does_not_change_who_answers_callers_without_a_name() -> None:
    known = served()
    known.add(NEW)
    assert (await known.chosen(None, acts)).name == "arm"


async def test_without_such_a_policy_in_the_file_the_only_loaded_one_answers_callers_without_a_name() -> None:
    known = served({"name": "text", "model": "m"})
    known.add(NEW)
    assert await known.chosen(None, acts) is NEW
    known.add(NEW.model_copy(update={"name": "newer"}))
    with pytest.raises(PolicyError, match="name a policy; this route is answered by: new, newer"):
        await known.chosen(None, acts)


async def test_a_name_that_is_not_known_is_looked_for_once_before_it_is_refused() -> None:
    known, looks = served(), []

    async def look(name: str) -> None:
        looks.append(name)
        if name == "new":
            known.add(NEW)

    known.look = look
    assert await known.chosen("new", acts) is NEW
    assert await known.chosen("new", acts) is NEW
    with pytest.raises(PolicyError, match="no policy 'other'; served: arm, new"):
        await known.chosen("other", acts)
    assert looks == ["new", "other"]


async def test_a_closed_policy_is_drained_when_its_last_request_has_ended() -> None:
    known = served()
    known.add(NEW)
    with known.under_way(NEW):
        with known.under_way(NEW):
            known.close("new")
            drained = asyncio.ensure_future(known.drained("new", 60.0))
        await asyncio.sleep(0)
        assert not drained.done()
    assert await drained


async def test_a_request_that_does_not_end_is_not_waited_for_without_end() -> None:
    known = served()
    known.add(NEW)
    with known.under_way(NEW):
        assert not await known.drained("new", 0.001)


async def test_a_connection_to_an_unloaded_policy_does_not_go_on_with_the_next_of_its_name() -> None:
    known = served()
    known.add(NEW)
    opened = await known.chosen("new", acts)
    known.remove("new")
    again: AnyPolicy = NEW.model_copy()
    known.add(again)
    with pytest.raises(PolicyError, match="the policy 'new' was unloaded; served: arm, new"), known.under_way(opened):
        pass
    with known.under_way(again):
        pass
