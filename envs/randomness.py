"""Libraries that draw from the global generators of Python and numpy, made repeatable: each environment has its own."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

LENDING = threading.RLock()  # of the generators, which all threads share
SEEDS = 2**32  # numpy's global generator takes no larger ones


class OwnRandom:
    """The state of both global generators as one environment sees it.

    own = OwnRandom(7)
    with own.lent():        # the library draws its numbers of this environment, and nobody else's
        library.step(...)

    One at a time: whoever lends in another thread waits for the end of the body.
    """

    def __init__(self, seed: int) -> None:
        numpys = np.random.RandomState(seed % SEEDS)
        self._states = random.Random(seed).getstate(), numpys.get_state()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """The global generators are this environment's while the body runs, and what they were afterwards."""
        with LENDING:
            others = random.getstate(), np.random.get_state()
            self._set(self._states)
            try:
                yield
            finally:
                self._states = random.getstate(), np.random.get_state()
                self._set(others)

    def _set(self, states: tuple[tuple[object, ...], object]) -> None:
        random.setstate(states[0])
        np.random.set_state(states[1])  # type: ignore[arg-type]
