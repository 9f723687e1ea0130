"""What is remembered of each session: its last steps and its last action. Bounded in number, bytes and idle time."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from deployments.protocol.act import PastStep, Vector

SessionKey = tuple[str, str]  # (policy, session id): the same session id with two policies is two sessions


@dataclass(slots=True, eq=False)
class Session:
    """`steps`: oldest first. `last_action` [D]: what the robot was told last, None before the first answer."""

    key: SessionKey
    used_s: float
    steps: deque[PastStep] = field(default_factory=deque)
    last_action: Vector | None = None

    @property
    def size_bytes(self) -> int:
        return sum(map(_size_bytes, self.steps))


class Sessions:
    """`max_idle_s`: a session that was not used for that long is forgotten. Beyond `max_sessions`, or beyond
    `max_bytes` of frames in all of them together, the idlest is."""

    def __init__(
        self, max_sessions: int, max_bytes: int, max_idle_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_sessions = max_sessions
        self._max_bytes = max_bytes
        self._max_idle_s = max_idle_s
        self._clock = clock
        self._sessions: OrderedDict[SessionKey, Session] = OrderedDict()  # the idlest first
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def of(self, key: SessionKey) -> Session:
        """The session of that key, a new one if there is none. A session without an id ("") is never kept."""
        now_s = self._clock()
        self._drop_idle(now_s)
        if not key[1]:
            return Session(key, now_s)
        session = self._sessions.setdefault(key, Session(key, now_s))
        session.used_s = now_s
        self._sessions.move_to_end(key)
        while len(self._sessions) > self._max_sessions:
            self._drop(next(iter(self._sessions)))
        return session

    def add(self, session: Session, step: PastStep | None, action: Vector, max_steps: int) -> None:
        """Remembers an answer. Does nothing for a session that was forgotten while the answer was made:
        a step from before a reset must not follow it."""
        if self._sessions.get(session.key) is not session:
            return
        session.last_action = action
        if step is not None:
            session.steps.append(step)
            self._bytes += _size_bytes(step)
        while len(session.steps) > max_steps:
            self._bytes -= _size_bytes(session.steps.popleft())
        self._make_room(session)

    def forget(self, key: SessionKey) -> None:
        """The next request of that key begins a new session. One that is not known is no error."""
        if key in self._sessions:
            self._drop(key)

    def _make_room(self, newest: Session) -> None:
        while self._bytes > self._max_bytes and len(self._sessions) > 1:
            idlest = next(key for key in self._sessions if key != newest.key)
            self._drop(idlest)
        while self._bytes > self._max_bytes and newest.steps:
            self._bytes -= _size_bytes(newest.steps.popleft())

    def _drop_idle(self, now_s: float) -> None:
        while self._sessions:
            idlest = next(iter(self._sessions.values()))
            if now_s - idlest.used_s <= self._max_idle_s:
                return
            self._drop(idlest.key)

    def _drop(self, key: SessionKey) -> None:
        self._bytes -= self._sessions.pop(key).size_bytes


def _size_bytes(step: PastStep) -> int:
    return len(step.description) + sum(image.nbytes for image in step.images)
