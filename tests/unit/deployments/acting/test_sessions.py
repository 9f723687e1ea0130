"""What is remembered of a session, for how long, and how little it can grow."""

from __future__ import annotations

import numpy as np

from deployments.acting.sessions import Session, Sessions
from deployments.protocol.act import PastStep

ACTION = np.zeros(7, np.float32)
FRAME = np.zeros((10, 10, 3), np.uint8)  # 300 bytes


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def step(words: str) -> PastStep:
    return PastStep((FRAME,), words)


def sessions(clock: Clock | None = None, most: int = 10, max_bytes: int = 10**6, idle_s: float = 60) -> Sessions:
    return Sessions(most, max_bytes, idle_s, clock or Clock())


def words(session: Session) -> list[str]:
    return [step.description for step in session.steps]


def test_a_session_remembers_its_last_steps_and_its_last_action() -> None:
    kept = sessions()
    for number in range(5):
        kept.add(kept.of(("arm", "a")), step(str(number)), ACTION + number, max_steps=3)

    assert words(kept.of(("arm", "a"))) == ["2", "3", "4"]
    assert kept.of(("arm", "a")).last_action is not None
    assert kept.of(("arm", "a")).last_action[0] == 4  # type: ignore[index]
    assert kept.size_bytes == 3 * 301


def test_sessions_of_different_clients_and_of_different_policies_do_not_mix() -> None:
    kept = sessions()
    kept.add(kept.of(("arm", "a")), step("mine"), ACTION, 3)

    assert words(kept.of(("arm", "b"))) == []
    assert words(kept.of(("other", "a"))) == []


def test_a_request_without_a_session_leaves_nothing_behind() -> None:
    kept = sessions()
    kept.add(kept.of(("arm", "")), step("nobody's"), ACTION, 3)

    assert (len(kept), kept.size_bytes, words(kept.of(("arm", "")))) == (0, 0, [])


def test_a_reset_forgets_and_an_answer_from_before_it_is_not_remembered() -> None:
    kept = sessions()
    before = kept.of(("arm", "a"))
    kept.add(before, step("old"), ACTION, 3)
    kept.forget(("arm", "a"))
    kept.forget(("arm", "never seen"))
    after = kept.of(("arm", "a"))
    kept.add(before, step("late"), ACTION, 3)

    assert words(kept.of(("arm", "a"))) == []
    assert after.last_action is None
    assert kept.size_bytes == 0


def test_an_idle_session_is_forgotten() -> None:
    clock = Clock()
    kept = sessions(clock)
    kept.add(kept.of(("arm", "a")), step("old"), ACTION, 3)
    clock.now_s = 59
    kept.of(("arm", "b"))
    clock.now_s = 61
    kept.of(("arm", "c"))

    assert len(kept) == 2
    assert (kept.size_bytes, words(kept.of(("arm", "a")))) == (0, [])


def test_a_session_that_is_used_is_not_forgotten_however_old_it_is() -> None:
    clock = Clock()
    kept = sessions(clock)
    kept.add(kept.of(("arm", "a")), step("old"), ACTION, 3)
    for clock.now_s in (40.0, 80.0, 120.0):
        assert words(kept.of(("arm", "a"))) == ["old"]


def test_beyond_the_number_of_sessions_the_idlest_goes() -> None:
    kept = sessions(most=2)
    for name in ("a", "b", "a", "c"):
        kept.add(kept.of(("arm", name)), step(name), ACTION, 3)

    assert len(kept) == 2
    assert words(kept.of(("arm", "a"))) == ["a", "a"]
    assert words(kept.of(("arm", "b"))) == []


def test_beyond_the_bytes_the_idlest_session_goes_and_then_the_oldest_steps() -> None:
    kept = sessions(max_bytes=700)
    kept.add(kept.of(("arm", "a")), step("1"), ACTION, 9)
    for number in range(4):
        kept.add(kept.of(("arm", "b")), step(str(number)), ACTION, 9)

    assert words(kept.of(("arm", "b"))) == ["2", "3"]
    assert words(kept.of(("arm", "a"))) == []
    assert kept.size_bytes == 602
