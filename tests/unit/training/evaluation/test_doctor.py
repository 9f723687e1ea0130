"""Each fault, put in on purpose, is called by its name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from configs.training import TrainConfig
from deployments.protocol.generate import GenerateRequest, GenerateResult, Sampling
from envs import registry
from training.checks.agreement import NothingSampled, Scores, Tolerance
from training.evaluation.doctor import Prompt, diagnose, template_drift
from training.evaluation.examine import rendered_again
from training.rendering.renderer import ChatRenderer
from training.rollouts.group import run_group
from training.rollouts.player import Player, PlaySettings
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


BFLOAT16 = Tolerance.between("bfloat16", "bfloat16")


def rounded(scores: Scores, seed: int = 0) -> Scores:
    """With the noise that was measured between a bfloat16 engine and the learner of one healthy model of 135 M
    parameters: unbiased, mean of the absolute value 0.047 (a normal deviation of 0.047 * sqrt(pi / 2)), largest
    0.23."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(scores), len(scores[0]), generator=generator).mul(0.059).clamp(-0.23, 0.23)
    return (torch.tensor(scores) + noise).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("seed", range(8))
def test_rounding_in_bfloat16_is_healthy(seed: int) -> None:
    """It was called stale weights: single tokens are far off, but the mean is small and there is no bias."""
    report = diagnose(rounded(learner(1.0), seed), learner, 1.0, [3] * 20, 3, BFLOAT16, {"start": learner})

    assert report.healthy, report.cause
    assert 0.037 < report.mean_difference < 0.057
    assert report.max_difference > 0.1


def test_the_same_differences_in_float32_are_a_fault_and_the_types_are_named() -> None:
    report = diagnose(rounded(learner(1.0)), learner, 1.0, [3] * 20, 3)

    assert report.cause.startswith("stale weights or another model")
    assert "engine float32, learner float32: largest difference" in report.cause


def test_the_narrower_of_the_two_types_sets_the_tolerance() -> None:
    assert Tolerance.between("bfloat16", "float32").narrow
    assert Tolerance.between("float32", "bfloat16").dtypes == "engine float32, learner bfloat16"
    assert not Tolerance.between("float32", "float32").narrow


@pytest.mark.parametrize("used", [0.7, 0.9, 1.2])
def test_a_wrong_temperature_is_found_below_the_rounding_of_bfloat16(used: float) -> None:
    report = diagnose(rounded(learner(used)), learner, 1.0, [3] * 20, 3, BFLOAT16)

    assert report.cause.startswith("wrong temperature: the sampler used ")
    assert float(report.cause.split(" used ")[1].split(",")[0]) == pytest.approx(used, abs=0.05)


@pytest.mark.parametrize("change", [0.1, 0.3, 1.0])
def test_the_weights_that_the_replica_still_holds_are_found_below_the_rounding_of_bfloat16(change: float) -> None:
    others = LOGITS + change * torch.randn(LOGITS.shape, generator=torch.Generator().manual_seed(1))
    report = diagnose(
        rounded(logp(others, CHOSEN, 1.0)),
        learner,
        1.0,
        [3] * 20,
        3,
        BFLOAT16,
        {"start": lambda t: logp(others, CHOSEN, t)},
    )

    assert report.cause.startswith("stale weights: the replica samples with the weights of start")


def test_stale_weights_that_nobody_named_are_found_in_bfloat16_by_the_mean() -> None:
    others = LOGITS + 0.3 * torch.randn(LOGITS.shape, generator=torch.Generator().manual_seed(1))
    report = diagnose(rounded(logp(others, CHOSEN, 1.0)), learner, 1.0, [3] * 20, 3, BFLOAT16)

    assert report.cause.startswith("stale weights or another model")
    assert "engine bfloat16, learner bfloat16" in report.cause


def test_an_answer_of_another_version_is_named_in_bfloat16_whatever_the_numbers_say() -> None:
    report = diagnose(rounded(learner(1.0)), learner, 1.0, [2] * 20, 3, BFLOAT16)

    assert report.cause.startswith("stale weights: answers came from version 2")


def test_a_small_bias_in_bfloat16_is_a_fault_that_the_mean_does_not_show() -> None:
    shifted = [[value - 0.06 for value in row] for row in rounded(learner(1.0))]
    report = diagnose(shifted, learner, 1.0, [3] * 20, 3, BFLOAT16)

    assert report.mean_difference < BFLOAT16.mean
    assert "bias -0.0" in report.cause


def test_top_k_is_truncated_sampling_in_bfloat16_too() -> None:
    kept = LOGITS.topk(5, -1).values[..., -1:]
    truncated = LOGITS.masked_fill(kept > LOGITS, float("-inf"))
    chosen = sampled(truncated)
    report = diagnose(
        rounded(logp(truncated, chosen, 1.0)), lambda t: logp(LOGITS, chosen, t), 1.0, [3] * 20, 3, BFLOAT16
    )

    assert report.cause.startswith("truncated sampling")


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
