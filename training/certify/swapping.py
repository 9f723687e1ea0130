"""Replacing a function for a while, in this process or in the replicas'."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any


@contextmanager
def swapped(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """`owner.name` (a class's or a module's) is `make(the original)` meanwhile."""
    original = getattr(owner, name)
    setattr(owner, name, make(original))
    try:
        yield
    finally:
        setattr(owner, name, original)


Fault = Callable[[], AbstractContextManager[None]]

_put_in = ExitStack()  # of a replica's process


def put_in(_: Any, fault: Fault) -> None:
    """Runs in a replica's process, called on its actor: the fault stays until `take_out`."""
    _put_in.enter_context(fault())


def take_out(_: Any) -> None:
    _put_in.close()


@contextmanager
def in_replicas(app: str, fault: Fault) -> Iterator[None]:
    """The fault is in the processes of all replicas of an application meanwhile. `fault`: a function of a module that
    they can import."""
    import ray

    actors = _replicas(app)
    ray.get([actor.__ray_call__.remote(put_in, fault) for actor in actors], timeout=60)
    try:
        yield
    finally:
        ray.get([actor.__ray_call__.remote(take_out) for actor in actors], timeout=60)


def _replicas(app: str) -> list[Any]:
    import ray

    named = ray.util.list_named_actors(all_namespaces=True)
    found = [each for each in named if each["name"].startswith(f"SERVE_REPLICA::{app}#policy#")]
    return [ray.get_actor(each["name"], namespace=each["namespace"]) for each in found]
