"""A serving configuration is checked as a whole before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from configs.base import PACKAGE_DIR, ConfigError
from configs.serving import ServeConfig


def serve(*policies: dict[str, Any], **fields: Any) -> ServeConfig:
    return ServeConfig.parse({"policies": list(policies), **fields})


@pytest.mark.parametrize("file", sorted(PACKAGE_DIR.glob("serve/*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_config_loads_and_survives_a_round_trip(file: str) -> None:
    config = ServeConfig.load(file)
    assert ServeConfig.parse(config.dump()) == config


def test_policies_of_one_application_have_different_names() -> None:
    with pytest.raises(ConfigError, match="used twice: a"):
        serve({"name": "a", "model": "m"}, {"name": "a", "model": "n"}, {"name": "b", "model": "n"})


def test_an_application_without_a_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="policies"):
        serve()


def test_nothing_listens_beyond_this_machine_unless_told_to() -> None:
    assert serve({"model": "m"}).http.host == "127.0.0.1"
