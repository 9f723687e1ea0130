"""A policy's settings are checked on their own."""

from __future__ import annotations

from typing import Any

import pytest

from configs.base import ConfigError
from configs.policies import ChunkPolicy, PolicyConfig, ProviderPolicy
from configs.serving import ServeConfig


def serve(policy: dict[str, Any]) -> ServeConfig:
    return ServeConfig.parse({"policies": [policy]})


def policy(**settings: Any) -> Any:
    return serve(settings).policies[0]


@pytest.mark.parametrize("name", ["", "a/b", "-a", "a b"])
def test_a_name_that_could_not_stand_in_a_route_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"policies\.0\.name"):
        serve({"name": name, "model": "m"})


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
