"""Schema of who may call a served policy: API keys, of which only hashes are ever kept."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from configs.base import ConfigError, Strict

KEY_NAME = r"[a-z0-9][a-z0-9-]{0,31}"
HASHED_KEY = re.compile(rf"(?P<name>{KEY_NAME}):(?P<hash>\$argon2id\$\S+)")


class AccessConfig(Strict):
    """Who may call the application. Without keys it answers everybody who reaches it, which is refused where it listens
    beyond this machine."""

    keys_file: Path | None = Field(
        None,
        description="File with a line NAME:HASH for each API key, as `rayward key new` prints it; None: no file. It is "
        "read where the ingress runs, at its start.",
    )
    keys_variable: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable with such lines, separated by white space, in the ingress; None: none.",
    )
    open: bool = Field(
        False, description="Answer callers without a key although the application listens beyond this machine."
    )
    failures_per_minute: int = Field(
        60, ge=1, description="Wrong keys for one key's name in a minute, after which more of them are answered 429."
    )

    @property
    def keys_required(self) -> bool:
        """Whether every caller must show a key."""
        return self.keys_file is not None or self.keys_variable is not None


def listens_beyond_this_machine(host: str) -> bool:
    """Whether others can reach a server that binds to `host`; a name other than localhost may mean any address.

    >>> listens_beyond_this_machine("127.0.0.1"), listens_beyond_this_machine("0.0.0.0")
    (False, True)
    """
    if host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def key_hashes(access: AccessConfig, environment: Mapping[str, str]) -> dict[str, str]:
    """Name -> argon2id hash of each configured key; empty when no keys are required.

    Raises ConfigError when keys are required and none can be read. No message repeats what a line says: it may be a key
    that somebody put there in place of its hash.
    """
    found: dict[str, str] = {}
    if access.keys_file is not None:
        try:
            lines = access.keys_file.read_text().splitlines()
        except OSError as error:
            raise ConfigError(f"access.keys_file {access.keys_file} cannot be read: {error.strerror}") from error
        found |= _parsed(lines, f"access.keys_file {access.keys_file}")
    if access.keys_variable is not None:
        lines = environment.get(access.keys_variable, "").split()
        found |= _parsed(lines, f"the variable {access.keys_variable} (access.keys_variable)")
    if access.keys_required and not found:
        source = access.keys_file or access.keys_variable
        raise ConfigError(f"API keys are required, but {source} holds none: make one with `rayward key new NAME`")
    return found


def _parsed(lines: list[str], source: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = HASHED_KEY.fullmatch(line.strip())
        if match is None:
            raise ConfigError(f"{source}, entry {number}: must be NAME:HASH as `rayward key new NAME` prints it")
        if match["name"] in found:
            raise ConfigError(f"{source}, entry {number}: the name {match['name']} is used twice")
        found[match["name"]] = match["hash"]
    return found
