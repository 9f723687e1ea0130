"""A fault that can be put into a short run, and what is told about it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

from training.certify.swapping import in_replicas

Where = Literal["run", "resume", "ranks", "start", "images"]
Fault = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Mutant:
    """One fault.

    It is put in for the time of a short run: an ordinary one ("run"), one that goes on from the checkpoint of a healthy
    one ("resume"), updates of two ranks ("ranks"), the loading of a model of another `family` ("start"), or an update
    of a vision-language model ("images").
    """

    name: str
    fault: str  # what is wrong
    unseen: str  # what one would see without the check
    make: Fault  # puts it in, in the process where it is called
    caught_by: tuple[str, ...] = ()  # the checks that are to find it; which of them does depends on chance
    settings: tuple[str, ...] = ()  # overrides of the short run's configuration
    where: Where = "run"
    family: str = ""
    sources: tuple[str, ...] = ()  # public threads and papers
    skipped: str = ""  # why it is not run
    in_replica: bool = False  # a fault of the sampler, in the processes of the replicas

    def put_in(self, app: str) -> AbstractContextManager[None]:
        return in_replicas(app, self.make) if self.in_replica else self.make()
