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


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3"])
def test_an_application_that_others_can_reach_without_a_key_is_refused_with_both_ways_out(host: str) -> None:
    with pytest.raises(ConfigError, match=r"set access\.keys_file to that file, or set access\.open to true"):
        serve({"model": "m"}, http={"host": host})


@pytest.mark.parametrize("access", [{"open": True}, {"keys_file": "keys.txt"}, {"keys_variable": "KEYS"}])
def test_an_application_may_listen_beyond_this_machine_with_keys_or_when_told_to(access: dict[str, Any]) -> None:
    assert serve({"model": "m"}, http={"host": "0.0.0.0"}, access=access).http.host == "0.0.0.0"


@pytest.mark.parametrize("section", ["grpc", "websocket"])
def test_the_policy_for_clients_that_name_none_must_be_there(section: str) -> None:
    with pytest.raises(ConfigError, match=rf"{section}\.policy names 'robto', which is none of: robot"):
        serve({"name": "robot", "model": "m"}, **{section: {"policy": "robto"}})

    assert serve({"name": "robot", "model": "m"}, **{section: {"policy": "robot"}}).policies[0].name == "robot"


def test_nobody_without_a_key_loads_policies_from_another_machine() -> None:
    http = {"host": "0.0.0.0", "manage_policies": True}
    with pytest.raises(ConfigError, match=r"http\.manage_policies lets everybody who reaches 0\.0\.0\.0 load"):
        ServeConfig.parse({"policies": [{"model": "m"}], "http": http, "access": {"open": True}})
    ServeConfig.parse({"policies": [{"model": "m"}], "http": http, "access": {"keys_variable": "KEYS"}})
    ServeConfig.parse({"policies": [{"model": "m"}], "http": {"manage_policies": True}})
