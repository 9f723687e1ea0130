"""Each fault, put in on purpose, is called by its name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from configs.training import TrainConfig
from deployments.protocol.generate import GenerateRequest, GenerateResult, Sampling
from envs import registry
from training.evaluation.doctor import NothingSampled, Prompt, Scores, diagnose, template_drift
from training.evaluation.examine import rendered_again
from training.rollouts.episode import Player, PlaySettings
from training.rollouts.group import run_group
from training.rollouts.renderer import ChatRenderer
from training.types import Task

torch.manual_seed(0)
LOGITS = torch.randn(20, 6, 50) * 2  # 20 sequences of 6 tokens


def logp(logits: torch.Tensor, chosen: torch.Tensor, temperature: float) -> Scores:
    scores = torch.log_softmax(logits / temperature, -1)
    return scores.gather(-1, chosen[..., None])[..., 0].tolist()  # type: ignore[no-any-return]


def sampled(logits: torch.Tensor) -> torch.Tensor:
    return torch.distributions.Categorical(logits=logits).sample()


CHOSEN = sampled(LOGITS)


def learner(temperature: float) -> Scores:
    return logp(LOGITS, CHOSEN, temperature)


def test_a_sampler_that_agrees_is_healthy() -> None:
    report = diagnose(learner(1.0), learner, 1.0, [3] * 20, 3)
    assert report.healthy
    assert report.max_difference == 0
    assert len(report.by_position) == 6


def test_an_answer_of_another_version_is_stale_weights() -> None:
    other = logp(LOGITS + torch.randn_like(LOGITS), CHOSEN, 1.0)
    assert diagnose(other, learner, 1.0, [2] * 20, 3).cause.startswith("stale weights: answers came from version 2")


def test_weights_that_lie_about_their_version_are_found_too() -> None:
    other = logp(LOGITS + torch.randn_like(LOGITS), CHOSEN, 1.0)
    assert diagnose(other, learner, 1.0, [3] * 20, 3).cause.startswith("stale weights or another model")


def test_another_temperature_is_named_with_its_value() -> None:
    report = diagnose(learner(0.7), learner, 1.0, [3] * 20, 3)
    assert report.cause == "wrong temperature: the sampler used 0.7, the learner divides by 1"


def test_top_k_is_truncated_sampling() -> None:
    kept = LOGITS.topk(10, -1).values[..., -1:]
    truncated = LOGITS.masked_fill(kept > LOGITS, float("-inf"))
    chosen = sampled(truncated)
    report = diagnose(logp(truncated, chosen, 1.0), lambda t: logp(LOGITS, chosen, t), 1.0, [3] * 20, 3)
    assert report.cause.startswith("truncated sampling")


def test_the_model_folder_whose_weights_the_replica_still_holds_is_named() -> None:
    others = LOGITS + torch.randn_like(LOGITS)
    report = diagnose(
        logp(others, CHOSEN, 1.0), learner, 1.0, [3] * 20, 3, other_weights={"start": lambda t: logp(others, CHOSEN, t)}
    )
    assert report.cause == ("stale weights: the replica samples with the weights of start; publish the learner's again")


def test_a_temperature_between_the_usual_ones_is_found_to_two_digits() -> None:
    report = diagnose(learner(0.64), learner, 1.0, [3] * 20, 3)
    assert report.cause == "wrong temperature: the sampler used 0.64, the learner divides by 1"


def test_without_an_answer_there_is_nothing_to_say() -> None:
    with pytest.raises(NothingSampled):
        diagnose([], lambda t: [], 1.0, [], 0)


async def prompts_seen(sampler: ChatRenderer, learner: ChatRenderer, history: str) -> list[Prompt]:
    """What the sampler was given and what the learner renders, for two games of a policy that rambles."""
    config = TrainConfig.parse({"env": {"name": "tictactoe", "system_prompt": "", "history": history}})

    async def generate(request: GenerateRequest) -> GenerateResult:
        ids = [*sampler.tokenizer.encode("<move>5</move> or", add_special_tokens=False)]  # cut: no end of turn
        return GenerateResult(request.request_id, ids, [-1.0] * len(ids), 0, "length")

    settings = PlaySettings(config.env, config.rollout, Sampling(max_tokens=6), max_model_len=1024)
    player = Player(lambda: registry.make("tictactoe", split="heldout"), generate, sampler, settings)
    episodes = (await run_group(player, Task("tictactoe", 5), 2)).episodes
    return list(rendered_again(config, learner, episodes))


@pytest.mark.parametrize("history", ["none", "full"])
async def test_two_templates_that_differ_in_a_word_are_template_drift(policy_folder: Path, history: str) -> None:
    sampler, learner = ChatRenderer.load(str(policy_folder)), ChatRenderer.load(str(policy_folder))
    same = await prompts_seen(sampler, learner, history)
    assert len(same) > 2
    assert template_drift(same) == ""

    template = learner.tokenizer.chat_template
    changed = ChatRenderer.load(str(policy_folder))
    changed.tokenizer.chat_template = template.replace("'<|assistant|>'", "'<|assistant|>O'")
    cause = template_drift(await prompts_seen(sampler, changed, history))
    assert cause.startswith(f"template drift: {len(same)} of {len(same)} prompts differ"), cause
    assert "the first is prompt 0, from token" in cause
