from __future__ import annotations

from typing import Any

import pytest

from configs.base import ConfigError
from configs.policies import ChunkPolicy, PolicyConfig, ProviderPolicy
from configs.serving import ServeConfig


def policy(**settings: Any) -> Any:
    return ServeConfig.parse({"policies": [settings]}).policies[0]


def test_a_policy_is_of_the_kind_that_it_says_and_a_language_policy_where_it_says_none() -> None:
    assert isinstance(policy(model="m"), PolicyConfig)
    assert isinstance(policy(kind="chunks", checkpoint="c"), ChunkPolicy)
    assert isinstance(policy(kind="provider", model="openai/m"), ProviderPolicy)


def test_a_kind_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match=r"vllm.*chunks.*provider"):
        policy(kind="chunk", checkpoint="c")


def test_a_setting_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="flow_steps: unknown key"):
        policy(model="m", flow_steps=4)


def test_only_a_store_can_be_followed() -> None:
    with pytest.raises(ConfigError, match="follow needs a weights_root"):
        policy(model="m", follow=True)
    assert policy(kind="chunks", checkpoint="c", follow=True, weights_root="/store").follow


def test_fewer_replicas_at_most_than_at_least_are_refused() -> None:
    with pytest.raises(ConfigError, match="raise max_replicas"):
        policy(model="m", replicas={"min_replicas": 3, "max_replicas": 2})
