"""The replica's logic around a TokenEngine in memory: no Ray is started, and no vLLM."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.policies import PolicyConfig
from deployments.engines.base import EngineUnhealthy
from deployments.protocol.act import ChatRequest, ChatResult, ChatTurn
from deployments.protocol.completion import Completion, CompletionRequest
from deployments.protocol.exchange import HttpCall, HttpHead
from deployments.protocol.generate import GenerateFailure, GeneratePiece, GenerateRequest, GenerateResult, Sampling
from deployments.replicas import hosted, text
from deployments.replicas.text import PolicyReplica
from deployments.weights.push_steps import FinishPush, StartPush
from deployments.weights.store import WeightStore
from tests.unit.deployments.engines.in_memory import InMemoryEngine
from tests.unit.deployments.replicas.slow import SlowClock

pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'PolicyReplica.__del__' was never awaited")

Start = Callable[..., Awaitable[tuple[PolicyReplica, InMemoryEngine]]]


@pytest.fixture
def store(tmp_path: Path) -> WeightStore:
    return WeightStore(str(tmp_path / "store"))


@pytest.fixture
async def start(store: WeightStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    monkeypatch.setattr(hosted, "RETIRE_AFTER_S", 0.0)
    opened: list[PolicyReplica] = []

    async def started(engine: dict[str, Any] | None = None, **changes: Any) -> tuple[PolicyReplica, InMemoryEngine]:
        settings = {"model": "in memory", "weights_root": str(tmp_path / "store"), "engine": engine or {}}
        config = PolicyConfig.model_validate(settings)
        in_memory = InMemoryEngine()
        replica: Any = object.__new__(PolicyReplica)  # as Serve does: its constructor is awaited
        await replica.__init__(config.model_dump(mode="json"), lambda _: in_memory, **changes)
        opened.append(replica)
        return replica, in_memory

    yield started
    for replica in opened:
        await replica.__del__()


def publish(store: WeightStore, version: int) -> None:
    store.publish(version, [("w", torch.full((2,), float(version)))])


def request(name: str = "r", version: int = 0) -> GenerateRequest:
    return GenerateRequest(name, [5], Sampling(max_tokens=3), min_weight_version=version)


async def test_a_replica_starts_with_the_newest_version_and_answers_with_it(store: WeightStore, start: Start) -> None:
    publish(store, 4)
    replica, engine = await start()
    assert engine.loaded
    [answer] = await replica.generate([request()])
    assert isinstance(answer, GenerateResult)
    assert (answer.token_ids, answer.weight_version) == ([4, 4, 4], 4)


async def test_a_request_waits_for_the_version_that_it_names(store: WeightStore, start: Start) -> None:
    replica, _ = await start()
    publish(store, 1)
    placed = [pair async for pairs in replica.generate_stream([request("a", 1), request("b", 1)]) for pair in pairs]
    assert sorted((place, answer.weight_version) for place, answer in placed if isinstance(answer, GenerateResult)) == [
        (0, 1),
        (1, 1),
    ]


async def test_a_replica_whose_update_broke_refuses_aborts_fails_its_health_check_and_ends(
    store: WeightStore, start: Start
) -> None:
    ended = asyncio.get_running_loop().create_future()
    replica, engine = await start(end_process=ended.set_result)
    engine.answering.clear()
    running = asyncio.create_task(replica.generate([request("running")]))
    await engine.arrived.wait()
    engine.breaks = "a weight update broke off half-way"
    publish(store, 1)
    [asked] = await replica.generate([request("asked for it", 1)])
    [aborted] = await running
    [refused] = await replica.generate([request("later")])
    for answer in (asked, aborted, refused):
        assert isinstance(answer, GenerateFailure), answer
        assert (answer.kind, "half-way" in answer.message) == ("engine_failed", True)
    with pytest.raises(EngineUnhealthy, match="half-way"):
        await replica.check_health()
    assert await ended == 1
    assert engine.closed, "its child processes do not outlive it"


async def test_a_healthy_replica_does_not_end(start: Start) -> None:
    replica, engine = await start(end_process=lambda code: pytest.fail("ended"))
    await replica.check_health()
    assert not engine.closed


async def test_a_learner_pushes_a_version_through_the_replica(start: Start) -> None:
    replica, _ = await start()
    await replica.push(StartPush(7, 300.0))
    await replica.push(FinishPush(7))
    assert (await replica.status())["weight_version"] == 7


async def test_a_conversation_waits_for_the_version_that_it_names_and_failures_stay_its_own(
    store: WeightStore, start: Start
) -> None:
    replica, _ = await start()
    publish(store, 1)
    turns = [ChatTurn("user", "left or right?")]
    asked = [
        ChatRequest("a", turns, time.time() + 60.0, min_weight_version=1),
        ChatRequest("late", turns, time.time() - 1.0),
    ]
    placed = dict([pair async for pairs in replica.chat(asked) for pair in pairs])
    assert placed[0] == ChatResult("left or right? 1", 1)
    assert isinstance(placed[1], GenerateFailure)
    assert placed[1].kind == "deadline_exceeded"


async def test_a_conversation_ends_when_its_caller_leaves(start: Start) -> None:
    replica, engine = await start()
    engine.answering.clear()
    asked = ChatRequest("left", [ChatTurn("user", "left or right?")], time.time() + 60.0)
    answers = replica.chat([asked])
    answering = asyncio.ensure_future(anext(answers))
    await engine.arrived.wait()
    await replica.abandon(["left"])
    [(_, answer)] = await answering
    assert isinstance(answer, GenerateFailure)
    assert answer.kind == "cancelled"
    assert engine.unfinished() == 0


class Words:
    """Stands for a tokenizer."""

    def get_vocab(self) -> dict[str, int]:
        return {"x" * 100: 0}

    def encode(self, text: str) -> list[int]:
        return [len(text)]


async def test_plain_requests_of_one_call_are_answered_whole_or_in_pieces(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda model: Words())
    replica, engine = await start()
    engine.version = 7
    sampling, conversation = Sampling(max_tokens=2), (ChatTurn("user", "You play X."),)
    asked = [
        CompletionRequest("whole", "You", sampling),
        CompletionRequest("pieces", conversation, sampling, stream=True),
        CompletionRequest("refused", (*conversation, ChatTurn("system", "Play.")), sampling, stream=True),
    ]
    engine.answering.clear()
    call = replica.complete(asked)
    begun = await anext(call)
    assert [part for place, part in begun if place == 1] == [GeneratePiece("7", 7)] * 2, "before the answer is there"
    engine.answering.set()
    parts = begun + [part async for placed in call for part in placed]
    ends = {place: part for place, part in parts if not isinstance(part, GeneratePiece)}
    assert ends[0] == Completion("whole", "77", "length", 1, 2, 7)
    assert ends[1] == Completion("pieces", "77", "length", 1, 2, 7)
    assert isinstance(ends[2], GenerateFailure)
    assert (ends[2].kind, ends[2].message) == (
        "invalid_request",
        "the chat template takes a system message at the start only",
    )


async def test_a_prompt_that_is_not_ready_in_time_ends_at_the_deadline(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda model: Words())
    replica, engine = await start()

    async def never(turns: Any) -> list[int]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(engine, "conversation", never)
    asked = CompletionRequest("late", (ChatTurn("user", "You play X."),), deadline_s=0.05)
    [(_, answer)] = await anext(replica.complete([asked]))
    assert isinstance(answer, GenerateFailure)
    assert answer.kind == "deadline_exceeded"
    assert engine.unfinished() == 0


async def test_making_the_openai_application_waits_for_no_update_of_the_weights(
    store: WeightStore, start: Start
) -> None:
    replica, engine = await start()
    engine.updating.clear()
    publish(store, 1)
    updating = asyncio.create_task(replica.ensure_version(1))
    await engine.update_began.wait()
    call = HttpCall("c", "POST", "/v1/chat/completions", "", (), b"{}", deadline_unix_s=time.time() + 60.0)
    assert [piece async for piece in replica.openai(call)] == [HttpHead(200, (), weight_version=0), b"0"]
    engine.updating.set()
    assert await updating == 1


async def test_what_would_wait_in_vain_is_refused_by_every_way_in(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One seat, answers of 10 s, one request in the engine: the next one would take 20 s."""
    clock = SlowClock(text, monkeypatch)
    replica, engine = await start(engine={"max_num_seqs": 1})

    async def ask(name: str) -> None:
        [_ async for _ in replica.generate_stream([request(name)])]

    await clock.teach(ask, engine.arrived, engine.answering)
    staying = asyncio.create_task(ask("stays"))
    await engine.arrived.wait()
    hurried = replace(request("hurried"), deadline_s=20.0)
    now = time.time()
    chat = ChatRequest("hurried", [ChatTurn("user", "?")], now + 20.0)
    call = HttpCall("hurried", "POST", "/v1/chat/completions", "", (), b"{}", deadline_unix_s=now + 20.0)
    answers: list[Any] = [answer async for placed in replica.generate_stream([hurried]) for _, answer in placed]
    answers += [answer async for placed in replica.chat([chat]) for _, answer in placed]
    answers += [piece async for piece in replica.openai(call)]
    plain = CompletionRequest("hurried", "?", deadline_s=20.0)  # refused before a tokenizer is even loaded
    answers += [part async for placed in replica.complete([plain]) for _, part in placed]
    assert [(answer.kind, answer.retry_after_s) for answer in answers] == [("overloaded", 20.0)] * 4
    patient = asyncio.create_task(ask("patient"))
    engine.answering.set()
    await asyncio.gather(staying, patient)


async def test_a_route_that_needs_no_engine_is_answered_under_any_load(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SlowClock(text, monkeypatch)
    replica, engine = await start(engine={"max_num_seqs": 1})

    async def ask(name: str) -> None:
        [_ async for _ in replica.generate_stream([request(name)])]

    await clock.teach(ask, engine.arrived, engine.answering)
    staying = asyncio.create_task(ask("stays"))
    await engine.arrived.wait()
    call = HttpCall("t", "POST", "/tokenize", "", (), b"{}", deadline_unix_s=time.time() + 20.0)
    pieces = replica.openai(call)
    assert await anext(pieces) == HttpHead(200, (), weight_version=0)
    engine.answering.set()
    assert [piece async for piece in pieces] == [b"0"]
    await staying
