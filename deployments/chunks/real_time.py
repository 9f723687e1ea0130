"""Real-time chunking: what a robot executes while its next chunk is on the way (arXiv 2506.07339). Pure; numpy only.

Steps are counted in executed actions, not in ticks of a clock: a tick at which the robot had nothing to execute, and
held, is no step. A chunk that was asked for at step s says in its row j what to do at step s + j.

    step          0 1 2 3 4 5 6 7 8 9 ...
    chunk, asked at 0   [0 1 2 3 4 5 6 7]
    asked at 3, delay 2       [3 4 5 6 7 8 9 10]    rows 3 and 4 are frozen: they are executed before this arrives
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from deployments.protocol.act import Actions, Committed, Vector


def committed_after(chunk: Actions, executed: int, delay: int, max_delay: int | None = None) -> Committed | None:
    """What is still to come of `chunk` [horizon, D] after `executed` of its rows, of which the first `delay` will have
    been executed before the next chunk arrives. None when nothing is left.

    The frozen part is never longer than what is left, nor than `max_delay` (what the policy was trained for).

    >>> committed_after(np.arange(4, dtype=np.float32)[:, None], executed=1, delay=2).actions.ravel().tolist()
    [1.0, 2.0, 3.0]
    """
    left = chunk[max(0, executed) :]
    if not len(left):
        return None
    return Committed(left, max(0, min(delay, len(left), len(left) if max_delay is None else max_delay)))


def prefix_weights(horizon: int, prefix: int, delay: int) -> NDArray[np.float32]:
    """[horizon]: how strongly each row of a new chunk is tied to the `prefix` rows that are left of the running one.

    1 for the first `delay` rows; then c (exp(c) - 1) / (e - 1) with c = (prefix - i) / (prefix - delay + 1), which falls
    to nearly 0 at the end of the prefix; 0 behind it (equation 5 of arXiv 2506.07339). Needs delay <= prefix <= horizon.

    >>> prefix_weights(horizon=4, prefix=2, delay=1).round(2).tolist()
    [1.0, 0.19, 0.0, 0.0]
    """
    row = np.arange(horizon)
    c = np.clip((prefix - row) / (prefix - delay + 1), 0.0, 1.0)
    soft = c * np.expm1(c) / np.expm1(1.0)
    return np.where(row < delay, 1.0, np.where(row < prefix, soft, 0.0)).astype(np.float32)


class DelayEstimate:
    """How many steps the next answer is expected to take: the longest of the last `window` answers, because an answer
    that comes later than the frozen part is long does not continue what was executed."""

    def __init__(self, initial: int = 0, window: int = 10) -> None:
        self._initial = initial
        self._measured: deque[int] = deque(maxlen=window)

    def measured(self, steps: int) -> None:
        """An answer came `steps` executed steps after it was asked for."""
        self._measured.append(steps)

    def expected(self) -> int:
        return max(self._measured, default=self._initial)


class ChunkSchedule:
    """The running chunk of a robot, and how the next one takes over without a seam.

    Per tick of the robot's clock: `action = next_action(step)`; send it and add one to `step`, or hold where it is
    None. Where `is_due(step, delay)`: observe, ask with `committed(step, delay)`, and remember `step`. When the answer
    comes: `accept(chunk, asked_at_step)`.
    """

    def __init__(self, max_delay: int | None = None) -> None:
        """`max_delay`: most frozen actions that the policy takes; None: any."""
        self._max_delay = max_delay
        self._chunk: Actions | None = None
        self._asked_at = 0

    def next_action(self, now_step: int) -> Vector | None:
        """The action [D] of this step; None before the first chunk and behind the end of the last: hold, and do not
        count the tick as a step."""
        if self._chunk is None or not 0 <= now_step - self._asked_at < len(self._chunk):
            return None
        action: Vector = self._chunk[now_step - self._asked_at]
        return action

    def remaining(self, now_step: int) -> int:
        """Actions that can still be executed, this step's included."""
        return 0 if self._chunk is None else max(0, self._asked_at + len(self._chunk) - now_step)

    def is_due(self, now_step: int, delay: int, execute_steps: int | None = None) -> bool:
        """Whether the next chunk should be asked for now: `execute_steps` of the running one are done (None: half of
        it), or so little is left that the answer would come too late."""
        if self._chunk is None:
            return True
        wanted = len(self._chunk) // 2 if execute_steps is None else execute_steps
        return now_step - self._asked_at >= wanted or self.remaining(now_step) <= delay + 1

    def committed(self, now_step: int, delay: int) -> Committed | None:
        """What to send along with an observation of this step; see `committed_after`."""
        if self._chunk is None:
            return None
        return committed_after(self._chunk, now_step - self._asked_at, delay, self._max_delay)

    def accept(self, chunk: Actions, asked_at_step: int) -> bool:
        """Takes over `chunk` [horizon, D]; False when the running one was asked for later: answers may overtake each
        other. Rows whose steps are over are never executed."""
        if self._chunk is not None and asked_at_step < self._asked_at:
            return False
        self._chunk, self._asked_at = chunk, asked_at_step
        return True
