"""One learner: scores, updates, restores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from configs.training import AlgorithmConfig, LearnerConfig, OptimizerConfig
from tests.unit.training.learner.cases import SAMPLES, batch, learner, sample, siblings
from training.learner import checkpoint
from training.learner import learner as learning
from training.learner.microbatches import microbatches
from training.types import Batch, Denominators


def test_padded_chunked_scores_equal_one_whole_softmax_at_a_time(policy_folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    scores = learner(policy_folder).score(SAMPLES)
    model = AutoModelForCausalLM.from_pretrained(policy_folder).eval()
    for one, got in zip(SAMPLES, scores, strict=True):
        ids = torch.tensor([one.token_ids_T])
        with torch.no_grad():
            logp = torch.log_softmax(model(ids).logits[0, :-1] / 0.7, -1)
        expected = [float(logp[t - 1, one.token_ids_T[t]]) for t in range(1, len(one.mask_T)) if one.mask_T[t]]
        assert got == pytest.approx(expected, abs=1e-5)


def test_micro_batches_of_any_size_give_the_same_step(policy_folder: Path) -> None:
    def after(budget: int) -> dict[str, torch.Tensor]:
        one = learner(policy_folder, learner=LearnerConfig(max_tokens_per_microbatch=budget, logprob_chunk_tokens=16))
        one.update(batch(SAMPLES))
        return dict(one.state_dict())

    small, large = after(32), after(4096)
    assert all(torch.allclose(small[name], large[name], atol=1e-4) for name in small)


def test_a_prompt_that_is_computed_once_gives_the_same_step(policy_folder: Path) -> None:
    """Against the same updates without sharing; with a KL term, whose reference shares too."""
    samples = [each for seed in range(3) for each in siblings(seed, 12, [3, 5, 4])]
    settings = LearnerConfig(max_tokens_per_microbatch=96, logprob_chunk_tokens=16)
    found = []
    for shares in (True, False):
        one = learner(policy_folder, learner=settings, algorithm=AlgorithmConfig(kl_coef=0.1, entropy_coef=0.01))
        assert one.shares_beginnings
        one.shares_beginnings = shares
        parts = one.microbatches(tuple(samples))
        assert any(part.beginnings for part in parts) is shares
        found.append((one.score(samples), [one.update(batch(samples)) for _ in range(2)]))
    (scores, updates), (whole_scores, whole_updates) = found
    for got, expected in zip(scores, whole_scores, strict=True):
        assert got == pytest.approx(expected, abs=1e-5)
    for metrics, whole in zip(updates, whole_updates, strict=True):
        names = ("train/loss", "train/entropy", "train/kl", "train/grad_norm")
        assert [metrics[name] for name in names] == pytest.approx([whole[name] for name in names], rel=1e-3, abs=1e-5)
    assert updates[1]["train/kl"] > 0


def test_turns_that_were_played_twice_are_computed_once_and_give_the_same_step(
    policy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has an advantage and sampler's log-probabilities of its own. Against the same updates with all computed."""
    played = siblings(0, 12, [3, 5])
    again = [replace(s, advantage=-0.5, sampler_logp_T=tuple(2 * p for p in s.sampler_logp_T)) for s in played]

    def updated(each: bool) -> tuple[int, list[dict[str, float]]]:
        if each:
            monkeypatch.setattr(learning, "microbatches", lambda samples, budget, **_: microbatches(samples, budget))
        one = learner(policy_folder, algorithm=AlgorithmConfig(kl_coef=0.1, entropy_coef=0.01))
        computed: list[int] = []
        one.policy.model.lm_head.register_forward_pre_hook(lambda _, inputs: computed.append(len(inputs[0])))
        metrics = [one.update(batch([*played, *again])) for _ in range(2)]
        return sum(computed), metrics

    (tokens, once), (all_tokens, whole) = updated(each=False), updated(each=True)
    assert 2 * tokens == all_tokens
    for metrics, expected in zip(once, whole, strict=True):
        assert metrics == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_updates_raise_the_probability_of_what_paid(policy_folder: Path) -> None:
    one = learner(policy_folder)
    before = sum(map(sum, one.score([sample(1, 12, 1.0)])))
    for _ in range(5):
        one.update(batch([sample(1, 12, 1.0)]))
    assert sum(map(sum, one.score([sample(1, 12, 1.0)]))) > before


def test_a_batch_without_samples_changes_nothing(policy_folder: Path) -> None:
    one = learner(policy_folder)
    before = {name: tensor.clone() for name, tensor in one.state_dict()}
    one.update(Batch((), Denominators(8, 4, groups=0)))
    assert all((before[name] == tensor).all() for name, tensor in one.state_dict())


def test_a_restored_learner_goes_on_bit_for_bit(policy_folder: Path, tmp_path: Path) -> None:
    whole, first = learner(policy_folder), learner(policy_folder)
    for _ in range(2):
        whole.update(batch(SAMPLES))
        first.update(batch(SAMPLES))
    checkpoint.write(tmp_path, 2, first, {"step": 2})
    second = learner(policy_folder)
    latest = checkpoint.latest(tmp_path)
    assert latest is not None
    assert checkpoint.restore(latest, second) == {"step": 2}
    whole.update(batch(SAMPLES))
    second.update(batch(SAMPLES))
    resumed = dict(second.state_dict())
    assert all((tensor == resumed[name]).all() for name, tensor in whole.state_dict())


def test_a_resumed_learner_has_the_optimiser_settings_that_it_was_given(policy_folder: Path, tmp_path: Path) -> None:
    """Those of the run that saved the state came back with it, without a word."""
    first = learner(policy_folder, optimizer=OptimizerConfig(lr=1e-2, warmup_steps=0))
    first.update(batch(SAMPLES))
    first.save(tmp_path)
    changed = OptimizerConfig(lr=1e-2, warmup_steps=0, weight_decay=0.5, beta1=0.5, beta2=0.6, eps=1e-3)
    resumed = {}
    for name, settings in (("same", OptimizerConfig(lr=1e-2, warmup_steps=0)), ("changed", changed)):
        second = learner(policy_folder, optimizer=settings)
        second.load(tmp_path)
        second.update(batch(SAMPLES))
        resumed[name] = dict(second.state_dict())
    assert any((tensor != resumed["same"][name]).any() for name, tensor in resumed["changed"].items())
