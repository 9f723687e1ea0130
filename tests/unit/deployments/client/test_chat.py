"""A policy that acts asks its model through a Serve handle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deployments.client.chat import ServeChat
from deployments.errors import PolicyError
from deployments.protocol.act import ChatRequest, ChatResult, ChatTurn
from deployments.protocol.generate import GenerateFailure


class Handle:
    """A Serve handle whose replica answers each request by `answer`, or holds it for ever where that gives None."""

    def __init__(self, answer: Callable[[ChatRequest], Any]) -> None:
        self._answer = answer
        self.calls: list[Sequence[ChatRequest]] = []
        self.arrived, self.cancelled = asyncio.Event(), asyncio.Event()

    def options(self, method_name: str, stream: bool) -> Any:
        assert (method_name, stream) == ("chat", True)
        return SimpleNamespace(remote=self._call)

    def _call(self, requests: Sequence[ChatRequest]) -> Any:
        self.calls.append(requests)
        return _Cancellable(self._stream(requests), self.cancelled)

    async def _stream(self, requests: Sequence[ChatRequest]) -> AsyncGenerator[Any]:
        self.arrived.set()
        for place, request in enumerate(requests):
            answer = self._answer(request)
            if isinstance(answer, Exception):
                raise answer
            if answer is not None:
                yield [(place, answer)]
        await asyncio.Event().wait()


class _Cancellable:
    def __init__(self, pieces: AsyncGenerator[Any], cancelled: asyncio.Event) -> None:
        self._pieces, self._cancelled = pieces, cancelled

    def __aiter__(self) -> AsyncGenerator[Any]:
        return self._pieces

    def cancel(self) -> None:
        self._cancelled.set()


def request(name: str = "r", side: int = 2, deadline_unix_s: float = 1060.0) -> ChatRequest:
    frame = np.full((side, side, 3), 7, np.uint8)
    return ChatRequest(name, [ChatTurn("user", "What now?", (frame,))], deadline_unix_s)


def chat(handle: Handle) -> ServeChat:
    return ServeChat(handle, clock=lambda: 1000.0)


async def test_a_frame_reaches_the_replica_as_it_is() -> None:
    handle = Handle(lambda asked: ChatResult("left", 3))
    answer = await chat(handle)(request())
    assert (answer.text, answer.weight_version) == ("left", 3)
    [[received]] = handle.calls
    assert received.turns[0].images[0].tolist() == [[[7, 7, 7]] * 2] * 2


async def test_small_questions_of_one_moment_share_a_call_and_large_ones_travel_alone() -> None:
    handle = Handle(lambda asked: ChatResult(asked.request_id, 0))
    ask = chat(handle)
    answers = await asyncio.gather(ask(request("a")), ask(request("b")), ask(request("large", side=800)))
    assert [answer.text for answer in answers] == ["a", "b", "large"]
    assert sorted(len(call) for call in handle.calls) == [1, 2]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(GenerateFailure("r", "too_large", "long"), "too_large"), (ConnectionError("gone"), "unavailable")],
)
async def test_what_went_wrong_arrives_as_its_kind(answer: Any, kind: str) -> None:
    with pytest.raises(PolicyError) as failed:
        await chat(Handle(lambda _: answer))(request())
    assert (failed.value.kind, failed.value.request_id) == (kind, "r")


async def test_a_refusal_says_when_to_come_back_as_the_replica_said_it() -> None:
    limit = (("x-ratelimit-remaining-requests", "0"),)
    with pytest.raises(PolicyError) as failed:
        await chat(Handle(lambda _: GenerateFailure("r", "overloaded", "full", 7.0, limit)))(request())
    assert failed.value.headers() == {"Retry-After": "7", "x-ratelimit-remaining-requests": "0"}


async def test_a_question_past_its_deadline_reaches_no_replica() -> None:
    handle = Handle(lambda _: None)
    with pytest.raises(PolicyError, match="deadline_exceeded"):
        await chat(handle)(request(deadline_unix_s=999.0))
    assert handle.calls == []


async def test_a_caller_that_leaves_ends_the_call() -> None:
    handle = Handle(lambda _: None)
    asking = asyncio.create_task(chat(handle)(request()))
    async with asyncio.timeout(10):
        await handle.arrived.wait()
        asking.cancel()
        await handle.cancelled.wait()
    await asyncio.gather(asking, return_exceptions=True)


async def test_a_question_that_died_with_its_replica_is_answered_by_another() -> None:
    answers = [ConnectionError("the replica is gone"), ChatResult("left", 3)]
    handle = Handle(lambda asked: answers.pop(0))
    assert (await chat(handle)(request())).text == "left"
    assert len(handle.calls) == 2
