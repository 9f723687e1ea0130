from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from configs.policies import PolicyConfig
from configs.replicas import EngineConfig
from deployments.engines.base import EngineUnhealthy
from deployments.engines.vllm import engine as vllm_engine
from deployments.engines.vllm.engine import CACHED_PARAMETERS, VllmEngine
from deployments.protocol.generate import NEVER, GenerateFailure, GenerateRequest, Sampling
from deployments.weights.push_steps import FinishPush, StartPush


class Llm:
    """As much of vLLM's AsyncLLM as health, `held` and updates touch."""

    def __init__(self) -> None:
        self.errored = False
        self.model_config = SimpleNamespace(max_model_len=64, get_vocab_size=lambda: 100)
        self.output_processor = SimpleNamespace(request_states={})
        self.renderer = SimpleNamespace(clear_mm_cache_async=self.nothing)
        self.answers = asyncio.Event()  # whether the engine's process answers
        self.engine_core = SimpleNamespace(
            is_scheduler_paused_async=self.answers.wait, pause_scheduler_async=self.nothing
        )
        self.start_weight_update = self.finish_weight_update = self.resume_generation = self.nothing

    async def nothing(self, *_: Any, **__: Any) -> None:
        pass

    def holds(self, request_id: str, tokens: int) -> None:
        detokenizer = SimpleNamespace(num_output_tokens=lambda: tokens)
        self.output_processor.request_states[request_id] = SimpleNamespace(detokenizer=detokenizer)


@pytest.fixture
async def attached() -> tuple[Llm, VllmEngine]:
    llm: Any = Llm()
    engine = VllmEngine(PolicyConfig(model="m", replicas={"no_progress_s": 0.001}))  # type: ignore[arg-type]
    engine.attach(llm)
    return llm, engine


async def test_an_engine_holds_all_requests_in_their_order_whichever_way_they_came(
    attached: tuple[Llm, VllmEngine],
) -> None:
    llm, engine = attached
    llm.holds("b", 3)
    llm.holds("chatcmpl-a", 0)
    assert list(engine.held().items()) == [("b", 3), ("chatcmpl-a", 0)]


async def test_while_it_is_paused_for_an_update_no_request_counts_as_standing_still(
    attached: tuple[Llm, VllmEngine],
) -> None:
    llm, engine = attached
    llm.holds("r", 3)
    await engine.push(StartPush(1, deadline_s=300.0))
    assert engine.held() == {}
    await engine.push(FinishPush(1))
    assert engine.held() == {"r": 3}


async def test_an_engine_whose_process_died_is_unhealthy(attached: tuple[Llm, VllmEngine]) -> None:
    llm, engine = attached
    await engine.health()
    llm.errored = True
    with pytest.raises(EngineUnhealthy, match="process died"):
        await engine.health()


async def test_an_idle_engine_whose_process_answers_nothing_is_unhealthy(attached: tuple[Llm, VllmEngine]) -> None:
    _, engine = attached

    async def until_unhealthy() -> None:
        while True:
            await engine.health()
            await asyncio.sleep(0)

    with pytest.raises(EngineUnhealthy, match="has not answered"):
        await asyncio.wait_for(until_unhealthy(), 30.0)


@pytest.mark.parametrize("token", [None, 1.0, True, "1"])
async def test_a_token_id_of_another_type_is_refused_before_it_reaches_the_engine(
    attached: tuple[Llm, VllmEngine], token: Any
) -> None:
    """vLLM decodes requests in a thread that one wrong type ends, and with it all requests of everybody."""
    _, engine = attached
    [answer] = await engine.generate([GenerateRequest("r", [5, token])])
    assert isinstance(answer, GenerateFailure)
    assert (answer.kind, answer.message) == ("invalid_request", "token ids must be integers")


async def test_no_two_engines_draw_the_same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """All replicas, and each after a restart, began with the same seed: siblings of a group shared their noise."""
    seeds = []

    def arguments(config: EngineConfig, model: str, weight_updates: bool) -> dict[str, Any]:
        seeds.append(config.seed)
        raise NotImplementedError  # vLLM is not started

    monkeypatch.setattr(vllm_engine, "engine_arguments", arguments)
    for _ in range(3):
        with pytest.raises(NotImplementedError):
            await VllmEngine(PolicyConfig(model="m")).load()
    assert len(set(seeds)) == 3


async def test_sampling_parameters_are_kept_for_a_bounded_number_of_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were kept for ever, by temperature."""
    made: list[Sampling] = []
    monkeypatch.setattr(
        VllmEngine, "_build_sampling", lambda self, sampling, in_parts: made.append(sampling) or sampling
    )
    engine = VllmEngine(PolicyConfig(model="m"))
    settings = [Sampling(temperature=i / 1000) for i in range(CACHED_PARAMETERS + 1)]
    for sampling in [settings[0], *settings, settings[-1]]:
        engine._sampling(sampling, False)
    assert made == settings, "what is asked for again is made once"
    engine._sampling(settings[0], False)
    assert made[-1] == settings[0], "what was asked for longest ago is forgotten"


def test_a_banned_token_is_lowered_below_all_others() -> None:
    """As the learner lowers it; the list of all other tokens would travel with every request."""
    built = VllmEngine(PolicyConfig(model="m"))._build_sampling(Sampling(banned_token_ids=(3, 5)), False)
    assert built.logit_bias == {3: NEVER, 5: NEVER}
    assert built.allowed_token_ids is None
