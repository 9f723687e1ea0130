"""A pretrained model, SmolLM2-135M-Instruct (Apache-2.0; see training.imitation.smollm2), served, scored and trained.
What a tiny random model cannot show: 49,152 tokens, characters of several tokens, tied embeddings, thirty layers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray

from configs.base import ConfigError
from configs.training import TrainConfig
from deployments.protocol.generate import GenerateRequest, GenerateResult, Sampling
from deployments.storage import runs
from training.checks.agreement import Fit, Tolerance
from training.evaluation.examine import Scoring, check_episodes
from training.imitation import smollm2
from training.rendering.renderer import ChatRenderer
from training.rollouts.samples import episode_samples
from training.rollouts.session import Session, open_session
from training.types import Batch, Denominators, Episode, Sample

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SETTINGS = {
    "steps": 1,
    "env": {"name": "key_door", "kwargs": {"split": "train"}, "history": "full", "max_turns": 2},
    "sampling": {"max_tokens": 12},
    "rollout": {"groups_per_step": 2, "group_size": 2, "request_deadline_s": 120.0},
    # An untrained model fails alike in all episodes of a group: the entropy bonus gives such groups a gradient.
    "algorithm": {"drop_uniform_groups": False, "entropy_coef": 0.01},
    "optimizer": {"lr": 1e-5, "warmup_steps": 0},
    "learner": {"max_tokens_per_microbatch": 512},
    "weights": {"keep": 2},
    "serving": {
        "engine": {"dtype": "float32", "max_model_len": 512, "max_num_seqs": 8, "cpu_kv_cache_gib": 0.25},
        "replicas": {"drain_s": 2.0, "num_cpus": 0.5},
    },
    "evaluation": {"episodes": 4},
    "tracking": {"prometheus": False},
}
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ITEM = " 漢字 🙂 é\n"
LIST = "".join(f"{number}.{ITEM}" for number in range(1, 5)) + "5."  # which the model continues with the same item


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In Hugging Face format."""
    try:
        smollm2.packaged_file()
    except ConfigError as missing:
        pytest.skip(str(missing))
    return smollm2.made(tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="module")
def renderer(model: Path) -> ChatRenderer:
    return ChatRenderer.load(str(model))


def configured(stack: Any, *overrides: str) -> TrainConfig:
    return TrainConfig.parse({**SETTINGS, "storage_path": str(stack.storage)}, overrides)


@pytest.fixture(scope="module")
def real(stack: Any, model: Path) -> Iterator[Session]:
    """A run on an application of its own, which lies at /real of the session's Serve."""
    config = configured(stack)
    with open_session(config, runs.create(config), model, "real", "/real") as session:
        yield session


def ask(stack: Any, path: str, **body: Any) -> httpx.Response:
    body = {"model": "policy", "temperature": 0, **body}
    answer = httpx.post(f"{stack.http}/real{path}", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer


def pieces(answer: httpx.Response) -> list[str]:
    """The texts of a stream, event by event."""
    *events, end = answer.text.removesuffix("\n\n").split("\n\n")
    assert end == "data: [DONE]"
    choices = [choice for event in events for choice in json.loads(event.removeprefix("data: "))["choices"]]
    return [choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices]


def sampled(session: Session, prompt: tuple[int, ...], version: int) -> GenerateResult:
    """An answer of the replica once it holds this version of the weights, or a newer one."""
    from ray import serve

    from deployments.client.handle import ServeGenerate

    async def run() -> GenerateResult:
        generate = ServeGenerate(serve.get_deployment_handle("policy", session.app))
        sampling = Sampling(max_tokens=8, seed=1, ignore_eos=True)
        return await generate(GenerateRequest(f"v{version}", prompt, sampling, min_weight_version=version))

    return asyncio.run(run())


def test_the_tokenizer_gives_every_text_back(renderer: ChatRenderer) -> None:
    text = "it 's 12 , <move>3</move> ▁ é 漢字 🙂\n\t"
    assert renderer.decode(renderer.answer(text)) == text
    assert renderer.stop_ids == (), "the engine ends a turn by itself"


def test_a_chat_is_answered_through_the_models_own_template(stack: Any, real: Session, renderer: ChatRenderer) -> None:
    whole = ask(stack, "/v1/chat/completions", messages=QUESTION, max_tokens=24).json()

    assert "Paris" in whole["choices"][0]["message"]["content"]
    assert whole["choices"][0]["finish_reason"] == "stop", "it ran on past the end of its turn"
    assert whole["usage"]["prompt_tokens"] == len(renderer.prompt(QUESTION))


def test_characters_of_several_tokens_arrive_whole_in_a_stream(
    stack: Any, real: Session, renderer: ChatRenderer
) -> None:
    asked = {"prompt": LIST, "max_tokens": 24}
    whole = ask(stack, "/v1/completions", **asked).json()["choices"][0]["text"]
    streamed = pieces(ask(stack, "/v1/completions", stream=True, **asked))

    assert "".join(streamed) == whole
    assert whole.startswith(ITEM)
    assert len(renderer.answer("漢")) > 2, "a character of one token shows nothing"
    assert len(streamed) > 4
    assert not any("\ufffd" in piece for piece in streamed), streamed


@pytest.fixture(scope="module")
def played(real: Session) -> list[Episode]:
    """Held-out episodes of two turns by the replica, before any update."""
    seeds = list(range(real.config.evaluation.episodes))
    return list(ray.get(real.coordinator.evaluate.remote(seeds, 0)))


def test_sampler_and_learner_agree_in_float32(real: Session, model: Path, played: list[Episode]) -> None:
    report = check_episodes(real.config, model, played, turns=len(played))

    print(f"\ndoctor, float32: largest {report.fit.largest:.2g}, mean {report.fit.mean:.2g}")
    assert report.healthy, report.cause
    assert report.max_difference < 1e-4


def test_a_learner_in_bfloat16_differs_by_rounding_alone(
    stack: Any, real: Session, model: Path, played: list[Episode]
) -> None:
    """The doctor's figure without its search for causes: that scores eleven times, and a processor without bfloat16
    takes five times as long in it."""
    samples = [sample for episode in played for sample in episode_samples(episode, 0.0, 0)]
    sampler = [[p for p, chosen in zip(s.sampler_logp_T, s.mask_T, strict=True) if chosen] for s in samples]

    learner = Scoring(configured(stack, "model.dtype=bfloat16"), model, samples)(1.0)

    fit = Fit.of(sampler, learner)
    print(f"\ndoctor, learner in bfloat16: largest {fit.largest:.2g}, mean {fit.mean:.2g}, bias {fit.bias:+.2g}")
    assert Tolerance.between("float32", "bfloat16").allows(fit)
    assert fit.largest > 1e-4, "it computed in float32"


def test_tied_embeddings_are_those_of_the_learner_after_each_of_ten_updates(
    real: Session, model: Path, renderer: ChatRenderer
) -> None:
    """An engine that keeps a packed copy of the tied output layer answers with the old one from the first update on."""
    from training.learner.learner import Learner
    from training.learner.settings import LearnerSettings

    learner = Learner(LearnerSettings.of(real.config, model))
    assert learner.config.tie_word_embeddings
    prompt, answer = renderer.prompt(QUESTION), renderer.answer("It is Berlin.")
    mask = (*[0] * len(prompt), *[1] * len(answer))
    taught = Sample((*prompt, *answer), mask, tuple(0.0 for _ in mask), advantage=1.0)
    batch = Batch((taught,), Denominators(len(answer), 1, 1, len(answer)))
    before, differences = learner.score([taught])[0], []
    for _ in range(10):
        learner.update(batch)
        version = (real.store.latest() or 0) + 1
        real.store.publish(version, learner.state_dict())
        told = sampled(real, prompt, version)
        assert told.weight_version == version
        mask = (*[0] * len(prompt), *[1] * len(told.token_ids))
        scored = learner.score([Sample((*prompt, *told.token_ids), mask, tuple(0.0 for _ in mask), 0.0)])[0]
        differences += [abs(a - b) for a, b in zip(told.logprobs, scored, strict=True)]

    assert max(abs(a - b) for a, b in zip(before, learner.score([taught])[0], strict=True)) > 0.1, "nothing was learned"
    assert max(differences) < 1e-4


def test_one_step_of_key_door_with_its_full_history(real: Session) -> None:
    from training.run.driver import train

    train(real, base_version=real.store.latest() or 0)

    (row,) = [json.loads(line) for line in real.run.metrics.read_text().splitlines()]
    assert row["train/episodes"] == 4
    assert row["train/grad_norm"] > 0
    assert row["rollout/turns"] == 2
    assert row["train/logp_difference_max"] < 1e-4
