"""Load on a server and what comes of it: clients that wait for their answers, and arrivals that wait for nobody."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

NO_ANSWER = 0  # in place of a status: the connection broke, or nothing came
REFUSALS = (408, 429, 503)
REFUSED_S = 1.0  # that a client which was refused waits before it asks again


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` of HTTP; `hint`: it says when to try again; `version` of the weights that answered."""

    status: int
    hint: bool = False
    version: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """`due`: when the request was to be sent, by `time.perf_counter`. `seconds`: from then to the whole answer, so that
    a load that is held up counts what its clients would have waited."""

    answer: Answer
    due: float
    seconds: float

    @property
    def failed(self) -> bool:
        return self.answer.status != 200


Ask = Callable[[], Awaitable[Answer]]  # never raises


async def closed_loop(ask: Ask, clients: int, seconds: float) -> list[Outcome]:
    """`clients` of them, each asking again as soon as it has its answer."""
    outcomes: list[Outcome] = []
    end = time.perf_counter() + seconds

    async def client() -> None:
        while (now := time.perf_counter()) < end:
            outcomes.append(await _outcome(ask, now))
            if outcomes[-1].failed:
                await asyncio.sleep(REFUSED_S)

    await asyncio.gather(*(client() for _ in range(clients)))
    return outcomes


async def open_loop(ask: Ask, rate: float, running: Callable[[float], bool], seed: int = 0) -> list[Outcome]:
    """Independent arrivals (Poisson), `rate` per second, while `running(seconds since the start)`; in their order."""
    rng, began, due_s = random.Random(seed), time.perf_counter(), 0.0
    asked: list[asyncio.Task[Outcome]] = []
    while running(due_s):
        await asyncio.sleep(max(0.0, began + due_s - time.perf_counter()))
        asked.append(asyncio.create_task(_outcome(ask, began + due_s)))
        due_s += rng.expovariate(rate)
    return list(await asyncio.gather(*asked))


async def _outcome(ask: Ask, due: float) -> Outcome:
    answer = await ask()
    return Outcome(answer, due, time.perf_counter() - due)


def good(outcomes: Sequence[Outcome], deadline_s: float) -> int:
    """Answers within their deadline."""
    return sum(not outcome.failed and outcome.seconds <= deadline_s for outcome in outcomes)


def unexplained(outcomes: Sequence[Outcome]) -> int:
    """Requests that got neither an answer nor a refusal with a status and a hint when to try again."""
    return sum(
        outcome.failed and not (outcome.answer.status in REFUSALS and outcome.answer.hint) for outcome in outcomes
    )


def statuses(outcomes: Sequence[Outcome]) -> Counter[int]:
    return Counter(outcome.answer.status for outcome in outcomes)


def p50_p99_ms(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Of the answers; NaN where there are fewer than two."""
    times = [outcome.seconds * 1e3 for outcome in outcomes if not outcome.failed]
    if len(times) < 2:
        return float("nan"), float("nan")
    return statistics.median(times), statistics.quantiles(times, n=100)[98]
