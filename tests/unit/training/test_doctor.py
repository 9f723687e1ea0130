"""Each fault, put in on purpose, is called by its name."""

from __future__ import annotations

import torch

from training.doctor import Scores, diagnose

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
