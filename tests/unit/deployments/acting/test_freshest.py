"""Which observation is answered when several of a session wait, and for whom an answer is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from deployments.acting.freshest import Freshest
from deployments.errors import PolicyError


@dataclass(frozen=True)
class Question:
    request_id: str


class Model:
    """Answers `saw N` when it is told to; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.cancelled: list[str] = []
        self.begun = asyncio.Semaphore(0)
        self.tickets: list[asyncio.Future[None]] = []

    async def __call__(self, requests: Sequence[Question]) -> str:
        newest = requests[-1].request_id
        self.asked.append([request.request_id for request in requests])
        ticket = asyncio.get_running_loop().create_future()
        self.tickets.append(ticket)
        self.begun.release()
        try:
            await ticket
        except asyncio.CancelledError:
            self.cancelled.append(newest)
            raise
        return f"saw {newest}"

    async def begins(self) -> None:
        await asyncio.wait_for(self.begun.acquire(), 10)

    def finish(self, number: int) -> None:
        self.tickets[number].set_result(None)


Line = Freshest[Question, str]


def ask(line: Line, model: Model, name: str, key: str = "robot") -> asyncio.Task[tuple[str, Question]]:
    return asyncio.create_task(line.answer(key, Question(name), model))


async def settled() -> None:
    """Lets everything run that can run without the model."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_waits_is_answered_from_the_newest_and_what_runs_is_not() -> None:
    line, model = Line(), Model()
    first = ask(line, model, "1")
    await model.begins()
    older, newer, newest = (ask(line, model, name) for name in "234")
    await settled()
    model.finish(0)
    await model.begins()
    late = ask(line, model, "5")
    await settled()
    model.finish(1)
    await model.begins()
    model.finish(2)

    assert await first == ("saw 1", Question("1"))
    assert [await task for task in (older, newer, newest)] == [("saw 4", Question("4"))] * 3
    assert await late == ("saw 5", Question("5"))
    assert model.asked == [["1"], ["2", "3", "4"], ["5"]]
    assert len(line) == 0


async def test_different_sessions_do_not_wait_for_each_other() -> None:
    line, model = Line(), Model()
    tasks = [ask(line, model, name, key=name) for name in "ab"]
    await model.begins()
    await model.begins()
    model.finish(1)
    assert await tasks[1] == ("saw b", Question("b"))
    model.finish(0)
    assert await tasks[0] == ("saw a", Question("a"))


async def test_nobody_starves_however_fast_observations_come() -> None:
    line, model = Line(), Model()
    tasks = [ask(line, model, "0")]
    for number in range(20):
        await model.begins()
        tasks += [ask(line, model, f"{number}.{extra}") for extra in range(3)]
        await settled()
        model.finish(number)
    await model.begins()
    model.finish(20)

    assert len(await asyncio.gather(*tasks)) == 61
    assert len(model.asked) == 21


async def test_one_caller_that_leaves_does_not_hurt_the_others() -> None:
    line, model = Line(), Model()
    first = ask(line, model, "1")
    await model.begins()
    stays, leaves = ask(line, model, "2"), ask(line, model, "3")
    await settled()
    leaves.cancel()
    await settled()
    model.finish(0)
    await model.begins()
    newest_leaves = ask(line, model, "4")
    await settled()
    newest_leaves.cancel()
    model.finish(1)

    assert await first == ("saw 1", Question("1"))
    assert await stays == ("saw 2", Question("2"))
    await settled()
    assert model.asked == [["1"], ["2"]]
    assert len(line) == 0


async def test_an_inference_goes_on_while_somebody_waits_and_is_cancelled_when_nobody_does() -> None:
    line, model = Line(), Model()
    first = ask(line, model, "1")
    await model.begins()
    older, newest = ask(line, model, "2"), ask(line, model, "3")
    await settled()
    model.finish(0)
    await model.begins()
    newest.cancel()
    await settled()
    assert model.cancelled == []
    older.cancel()
    await settled()

    assert model.cancelled == ["3"]
    assert (await first)[0] == "saw 1"
    assert len(line) == 0


async def test_who_comes_while_an_inference_is_being_cancelled_is_answered_all_the_same() -> None:
    line, model = Line(), Model()
    gone = ask(line, model, "1")
    await model.begins()
    gone.cancel()
    again = ask(line, model, "1")
    await model.begins()
    model.finish(1)

    assert await again == ("saw 1", Question("1"))


async def test_a_retry_of_what_is_being_inferred_gets_its_answer() -> None:
    line, model = Line(), Model()
    first = ask(line, model, "1")
    await model.begins()
    retry = ask(line, model, "1")
    await settled()
    model.finish(0)

    assert await asyncio.gather(first, retry) == [("saw 1", Question("1"))] * 2
    assert model.asked == [["1"]]


async def test_a_failure_reaches_everybody_that_waited_for_it_and_the_next_is_answered() -> None:
    line, model = Line(), Model()
    first = ask(line, model, "1")
    await model.begins()
    waiting = [ask(line, model, name) for name in "23"]
    await settled()
    model.finish(0)
    await model.begins()
    after = ask(line, model, "4")
    await settled()
    model.tickets[1].set_exception(PolicyError("engine_failed", "broke"))
    for task in waiting:
        with pytest.raises(PolicyError, match="broke"):
            await task
    await model.begins()
    model.finish(2)

    assert (await first)[0] == "saw 1"
    assert (await after)[0] == "saw 4"


async def test_an_inference_does_not_belong_to_the_context_of_the_request_that_started_it() -> None:
    import contextvars

    of_request: contextvars.ContextVar[str] = contextvars.ContextVar("of_request", default="nobody")

    async def infer(requests: Sequence[Question]) -> str:
        return of_request.get()

    of_request.set("request 1")

    assert (await Line().answer("robot", Question("1"), infer))[0] == "nobody"
