"""The doctor at a real replica: each fault is put in on purpose and called by its name."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.training import TrainConfig
from deployments.client.handle import ServeGenerate
from deployments.protocol.generate import Sampling
from envs.registry import make
from tests.integration.conftest import tiny_config
from training.cluster.application import APPLICATION
from training.evaluation.evaluate import publish_folder
from training.evaluation.examine import check_episodes
from training.imitation import tiny
from training.rendering.renderer import ChatRenderer
from training.rollouts.group import run_group
from training.rollouts.player import Player, PlaySettings
from training.types import Episode, Task

pytestmark = pytest.mark.integration
TURNS = 12


@pytest.fixture(scope="module")
def config(stack: Any) -> TrainConfig:
    return tiny_config(stack.storage, "env.name=tictactoe")


@pytest.fixture(scope="module")
def version(stack: Any) -> int:
    """The replica holds the model of the session as this version."""
    return publish_folder(stack.session, stack.session.model)


@pytest.fixture(scope="module")
def other_model(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(config.model.tiny, config.env, 1, tmp_path_factory.mktemp("other"))


def played(stack: Any, config: TrainConfig, version: int, template: str = "", **sampling: Any) -> list[Episode]:
    """Held-out games through the replica, with a sampler that is changed on purpose."""
    from ray import serve

    renderer = ChatRenderer.load(str(stack.session.model))
    renderer.tokenizer.chat_template = template or renderer.tokenizer.chat_template
    settings = PlaySettings.for_evaluation(config, version)
    settings = replace(settings, sampling=replace(settings.sampling, **sampling))

    async def run() -> list[Episode]:
        generate = ServeGenerate(serve.get_deployment_handle("policy", APPLICATION))
        player = Player(lambda: make("tictactoe", split="heldout"), generate, renderer, settings)
        groups = await asyncio.gather(*(run_group(player, Task("tictactoe", seed, seed), 1) for seed in range(TURNS)))
        return [group.episodes[0] for group in groups]

    return asyncio.run(run())


def test_an_unchanged_sampler_is_healthy(stack: Any, config: TrainConfig, version: int, other_model: Path) -> None:
    episodes = played(stack, config, version)
    report = check_episodes(config, stack.session.model, episodes, TURNS, version, [other_model])
    assert report.healthy, report.cause


def test_a_replica_that_missed_an_update_has_stale_weights(
    stack: Any, config: TrainConfig, version: int, other_model: Path
) -> None:
    episodes = played(stack, config, version)
    missed = check_episodes(config, other_model, episodes, TURNS, version + 1)
    assert missed.cause.startswith(f"stale weights: answers came from version {version}, the learner holds")
    mislabelled = check_episodes(config, other_model, episodes, TURNS, version, [stack.session.model])
    assert mislabelled.cause.startswith(f"stale weights: the replica samples with the weights of {stack.session.model}")


def test_a_sampler_at_another_temperature_is_named_with_its_value(
    stack: Any, config: TrainConfig, version: int
) -> None:
    report = check_episodes(
        config, stack.session.model, played(stack, config, version, temperature=0.7), TURNS, version
    )
    assert report.cause == "wrong temperature: the sampler used 0.7, the learner divides by 1"


@pytest.mark.parametrize(
    "changed", [Sampling(top_k=5), Sampling(top_p=0.5), Sampling(min_p=0.3)], ids=["top_k", "top_p", "min_p"]
)
def test_a_sampler_that_leaves_tokens_out_is_truncated_sampling(
    stack: Any, config: TrainConfig, version: int, changed: Sampling
) -> None:
    kept = {"top_k": changed.top_k, "top_p": changed.top_p, "min_p": changed.min_p}
    report = check_episodes(config, stack.session.model, played(stack, config, version, **kept), TURNS, version)
    assert report.cause.startswith("truncated sampling")


def test_prompts_of_another_template_are_template_drift(stack: Any, config: TrainConfig, version: int) -> None:
    other = tiny.CHAT_TEMPLATE.replace("'<|assistant|>'", "'<|assistant|>O'")
    report = check_episodes(config, stack.session.model, played(stack, config, version, template=other), TURNS, version)
    assert report.cause.startswith("template drift")
    assert report.max_difference < 1e-4, "sampler and learner agree on the ids that were sent"
