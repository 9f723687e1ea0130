from __future__ import annotations

import asyncio

import pytest

from deployments.replicas.once import Once


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Work:
    """Counts how often it was begun; an answer comes when `go` is set."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.begun, self.cancelled = 0, 0
        self.go, self.started = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> str:
        self.begun += 1
        self.started.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.answers.pop(0)


def once(clock: Clock | None = None, most: int = 8) -> Once[str]:
    return Once(lambda answer: answer != "failed", window_s=10.0, most=most, clock=clock or Clock())


async def test_the_same_question_has_the_same_answer_while_it_is_worked_on_and_afterwards() -> None:
    answers, work = once(), Work("first", "second")
    asked = [asyncio.create_task(answers.answer("k", work)) for _ in range(3)]
    await work.started.wait()
    work.go.set()
    assert await asyncio.gather(*asked) == ["first"] * 3
    assert await answers.answer("k", work) == "first"
    assert work.begun == 1


async def test_another_question_has_its_own_answer() -> None:
    answers, work = once(), Work("first", "second")
    work.go.set()
    assert [await answers.answer(key, work) for key in "ab"] == ["first", "second"]


async def test_a_client_that_gave_up_and_asks_again_gets_the_answer_of_the_work_that_runs() -> None:
    answers, work = once(), Work("first")
    gave_up = asyncio.create_task(answers.answer("k", work))
    await work.started.wait()
    again = asyncio.create_task(answers.answer("k", work))
    await asyncio.sleep(0)
    gave_up.cancel()
    await asyncio.gather(gave_up, return_exceptions=True)
    work.go.set()
    assert await again == "first"
    assert (work.begun, work.cancelled) == (1, 0)


async def test_work_ends_when_the_last_of_its_callers_left_and_the_next_one_begins_anew() -> None:
    answers, work = once(), Work("second")
    asked = [asyncio.create_task(answers.answer("k", work)) for _ in range(2)]
    await work.started.wait()
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    await asyncio.sleep(0)
    assert work.cancelled == 1
    work.go.set()
    assert await answers.answer("k", work) == "second"


async def test_a_failure_is_not_given_again() -> None:
    answers, work = once(), Work("failed", "answered")
    work.go.set()
    assert await answers.answer("k", work) == "failed"
    assert await answers.answer("k", work) == "answered"


async def test_who_waited_for_work_that_failed_does_its_own() -> None:
    answers, work = once(), Work("failed", "answered")
    owner = asyncio.create_task(answers.answer("k", work))
    await work.started.wait()
    joined = asyncio.create_task(answers.answer("k", work))
    await asyncio.sleep(0)
    work.go.set()
    assert await owner == "failed"
    assert await joined == "answered"


async def test_work_that_raises_is_told_to_all_and_forgotten() -> None:
    async def broken() -> str:
        raise RuntimeError("broken")

    answers = once()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken"):
            await answers.answer("k", broken)
    assert len(answers) == 0


async def test_an_answer_is_forgotten_after_its_window() -> None:
    clock = Clock()
    answers, work = once(clock), Work("first", "second")
    work.go.set()
    assert await answers.answer("k", work) == "first"
    clock.now = 9.0
    assert await answers.answer("k", work) == "first"
    clock.now = 11.0
    assert await answers.answer("k", work) == "second"


async def test_the_number_of_answers_is_bounded() -> None:
    answers = once(most=4)
    for key in range(100):
        work = Work("answer")
        work.go.set()
        await answers.answer(str(key), work)
    assert len(answers) <= 5
