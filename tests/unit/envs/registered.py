"""The registry's environments, for tests that play all of them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from envs import registry
from envs.base import Env

NEEDS = {"arm": "mujoco"}  # a library that rayward's base does not bring
SLOW = {"arm"}  # a step takes milliseconds: fewer episodes are played
SMALL: dict[str, dict[str, Any]] = {"arm": {"side": 32}}


def parameter(value: str, name: str) -> Any:
    """`value` as a parameter of a test, skipped where the environment's library is not installed."""
    library = NEEDS.get(name)
    missing = library is not None and find_spec(library) is None
    return pytest.param(value, marks=pytest.mark.skipif(missing, reason=f"{name} needs {library}"))


NAMES = [parameter(name, name) for name in registry.names()]


def made(name: str) -> Env:
    return registry.make(name, **SMALL.get(name, {}))


def episodes(name: str, many: int) -> int:
    """How many episodes of an environment are enough, of those with fast steps `many`."""
    return min(many, 4) if name in SLOW else many
