"""Which groups belong to which step, and how far rollouts may run ahead of the learner. Pure bookkeeping.

Step k trains on the groups k*G .. (k+1)*G - 1 of the task stream, whatever order they finish in, and they may be
played with weights of version k - lag or newer: the bound on the lag, full groups and the repeatability of a resumed
run follow from this rule alone. Lag 0 is the synchronous mode.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from training.types import Task


def task_at(env: str, run_seed: int, index: int, refill: int = 0) -> Task:
    """The task of a position in the stream: derived, so that a task cursor is all a checkpoint must hold of it.
    `refill`: how many groups without spread it has replaced there."""
    key = f"{run_seed}/{index}/{refill}" if refill else f"{run_seed}/{index}"
    digest = hashlib.blake2b(key.encode(), digest_size=4).digest()
    return Task(env, int.from_bytes(digest, "little") & 0x7FFFFFFF, index)


class Finished(Protocol):
    """What the buffer asks of a finished group."""

    @property
    def task(self) -> Task: ...

    @property
    def oldest_version(self) -> int: ...


G = TypeVar("G", bound=Finished)


@dataclass
class GroupBuffer(Generic[G]):
    """Finished groups that wait for their step, and what may be played next.

    `base_version` is the weight version that step 0 starts from.
    """

    groups_per_step: int
    max_lag: int
    steps: int
    first_step: int = 0
    base_version: int = 0
    version: int = 0  # the newest that the learner published
    _done: dict[int, G] = field(default_factory=dict)
    _cursor: int = field(init=False)

    def __post_init__(self) -> None:
        self._cursor = self.first_step * self.groups_per_step
        self.version = self.base_version + self.first_step

    def step_of(self, index: int) -> int:
        return index // self.groups_per_step

    def min_version(self, index: int) -> int:
        """The oldest weights that may play this position: those of its step, less the allowed lag."""
        return self.base_version + max(self.step_of(index) - self.max_lag, 0)

    def startable(self) -> Iterator[int]:
        """Positions whose weights are published and that nobody has started; each is given out once."""
        while self.step_of(self._cursor) < self.steps and self.min_version(self._cursor) <= self.version:
            index, self._cursor = self._cursor, self._cursor + 1
            if index not in self._done:
                yield index

    def add(self, group: G) -> None:
        """A finished group. Raises ValueError when its position is filled already: a group counts once."""
        index = group.task.index
        if index in self._done:
            raise ValueError(f"group {index} was delivered twice")
        self._done[index] = group

    def put_back(self, groups: Iterable[G]) -> None:
        """Groups of a step that was taken and must be taken again."""
        for group in groups:
            self.add(group)

    def remove(self, index: int) -> None:
        """Forgets a finished group, whose tokens are lost: it is to be played again."""
        self._done.pop(index, None)

    def ready(self, step: int) -> bool:
        return all(index in self._done for index in self._indices(step))

    def take(self, step: int) -> list[G]:
        """The groups of a step in the order of the stream, removed from the buffer."""
        return [self._done.pop(index) for index in self._indices(step)]

    def missing(self, step: int) -> list[int]:
        return [index for index in self._indices(step) if index not in self._done]

    def lag(self, groups: Iterable[Finished], step: int) -> int:
        """Learner version at `step` minus the oldest version in the groups, steps."""
        return max(self.base_version + step - group.oldest_version for group in groups)

    def waiting(self) -> list[G]:
        """Finished groups not yet trained on: part of a checkpoint."""
        return [self._done[index] for index in sorted(self._done)]

    def _indices(self, step: int) -> range:
        return range(step * self.groups_per_step, (step + 1) * self.groups_per_step)
