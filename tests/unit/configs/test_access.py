"""Which keys are configured, and where keys must be."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.access import AccessConfig, key_hashes, listens_beyond_this_machine
from configs.base import ConfigError

HASH = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$aGFzaA"


@pytest.mark.parametrize(
    ("host", "beyond"),
    [
        ("127.0.0.1", False),
        ("127.1.2.3", False),
        ("::1", False),
        ("localhost", False),
        ("0.0.0.0", True),
        ("::", True),
        ("10.0.0.7", True),
        ("robot.lab", True),
    ],
)
def test_only_loopback_addresses_are_out_of_others_reach(host: str, beyond: bool) -> None:
    assert listens_beyond_this_machine(host) is beyond


def test_no_keys_are_required_by_default() -> None:
    assert not AccessConfig().keys_required
    assert key_hashes(AccessConfig(), {}) == {}


def test_hashes_come_from_a_file_and_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(f"# robots\n\nrobot-1:{HASH}\nrobot-2:{HASH}\n")

    found = key_hashes(AccessConfig(keys_file=file, keys_variable="KEYS"), {"KEYS": f"lab:{HASH} desk:{HASH}"})

    assert found == dict.fromkeys(("robot-1", "robot-2", "lab", "desk"), HASH)


def test_a_key_in_place_of_its_hash_is_refused_and_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(f"robot-1:{HASH}\nrobot-2:rw_robot-2_0123456789abcdef\n")

    with pytest.raises(ConfigError, match="entry 2: must be NAME:HASH") as caught:
        key_hashes(AccessConfig(keys_file=file), {})

    assert "0123456789abcdef" not in str(caught.value)


def test_two_keys_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="the name lab is used twice"):
        key_hashes(AccessConfig(keys_variable="KEYS"), {"KEYS": f"lab:{HASH} lab:{HASH}"})


@pytest.mark.parametrize("environment", [{}, {"KEYS": "  "}], ids=["unset", "empty"])
def test_required_keys_that_are_not_there_stop_the_start(environment: dict[str, str]) -> None:
    """Without this an application whose variable got lost would answer everybody."""
    with pytest.raises(ConfigError, match="API keys are required, but KEYS holds none"):
        key_hashes(AccessConfig(keys_variable="KEYS"), environment)


def test_a_file_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        key_hashes(AccessConfig(keys_file=tmp_path / "none.txt"), {})
