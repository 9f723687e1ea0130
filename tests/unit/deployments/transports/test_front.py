"""What a streaming transport is given."""

import pytest

from configs.serving import ServeConfig
from deployments.errors import PolicyError
from deployments.transports.front import Front
from deployments.transports.policies import ServedPolicies
from tests.unit.deployments.transports.fakes import CHUNKS, FakeActing, NoKeys

PLAYER = {"name": "player", "model": "made-up", "act": {"game": {}, "max_image_bytes": 5000}}


def front(*policies: object, **changes: object) -> Front:
    return Front(FakeActing(), NoKeys(), ServedPolicies(ServeConfig.parse({"policies": list(policies), **changes})))


async def test_who_names_no_policy_is_answered_by_the_only_one_that_can() -> None:
    both = front(CHUNKS, PLAYER)

    assert (await both.policy(None, lambda policy: policy.acts)).name == "arm"
    assert (await both.policy(None, lambda policy: policy.plays)).name == "player"


async def test_a_policy_that_cannot_answer_is_not_found() -> None:
    with pytest.raises(PolicyError) as error:
        await front(CHUNKS, PLAYER).policy("player", lambda policy: policy.acts)

    assert error.value.kind == "not_found"


def test_an_image_is_bounded_by_its_policy_and_by_the_application() -> None:
    small, large = front(PLAYER), front(PLAYER, max_body_bytes=2000)

    assert small.limits(small.config.policies[0]).max_bytes == 5000
    assert large.limits(large.config.policies[0]).max_bytes == 2000
