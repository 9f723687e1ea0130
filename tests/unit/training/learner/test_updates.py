"""What one update does to the gradient: off-policy corrections, non-finite numbers, dropout."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from configs.models import ModelConfig
from configs.training import AlgorithmConfig, LearnerConfig, OptimizerConfig
from tests.unit.training.learner.cases import batch, learner, sample
from training.checks.agreement import FLOAT32
from training.checks.updates import UpdateRecord, update_alarms
from training.types import Batch, Sample

UNCLIPPED = OptimizerConfig(lr=1e-2, warmup_steps=0, clip_norm=1e9)


def sampled_at(folder: Path, ratio: float, advantage: float = 1.0) -> Batch:
    """A batch whose sampler gave every chosen token 1 / ratio of the learner's probability."""
    plain = sample(3, 12, advantage)
    (learner_logp,) = learner(folder).score([plain])
    scores = iter(learner_logp)
    sampler = tuple(next(scores) - math.log(ratio) if chosen else 0.0 for chosen in plain.mask_T)
    return batch([replace(plain, sampler_logp_T=sampler)])


def gradient_norm(folder: Path, ratio: float, **algorithm: object) -> float:
    config = AlgorithmConfig(**algorithm)  # type: ignore[arg-type]
    metrics = learner(folder, algorithm=config, optimizer=UNCLIPPED).update(sampled_at(folder, ratio))
    return metrics["train/grad_norm"]


@pytest.mark.parametrize("loss", ["grpo", "dapo", "gspo", "cispo"])
@pytest.mark.parametrize(
    ("off_policy", "ratio", "coefficient"),
    [
        # the gradient of one update is coefficient * A * grad log p; bounds are 0.5 and 2
        ("tis", 1.2, 1.2),
        ("tis", 0.7, 0.7),
        ("tis", 3.0, 2.0),
        ("icepop", 1.2, 1.2),
        ("icepop", 0.7, 0.7),
        ("icepop", 3.0, 0.0),
        ("sequence_mask", 1.2, 1.0),
        ("sequence_mask", 3.0, 0.0),
    ],
)
def test_the_ratio_of_learner_and_sampler_counts_once(
    policy_folder: Path, loss: str, off_policy: str, ratio: float, coefficient: float
) -> None:
    on_policy = gradient_norm(policy_folder, 1.0, loss=loss)
    assert gradient_norm(policy_folder, ratio, loss=loss, off_policy=off_policy) == pytest.approx(
        coefficient * on_policy, rel=1e-4, abs=1e-6
    )


def test_without_a_correction_one_update_takes_its_ratio_against_the_sampler(policy_folder: Path) -> None:
    on_policy = gradient_norm(policy_folder, 1.0)
    assert gradient_norm(policy_folder, 1.2) == pytest.approx(1.2 * on_policy, rel=1e-4)
    assert gradient_norm(policy_folder, 1.5) < 1e-5  # beyond clip_high; the policy's unit has some


def test_the_weight_stays_what_it_was_before_the_first_of_several_updates(policy_folder: Path) -> None:
    # AdamW does not see the scale of its gradients, so both learners have the same weights after the first update
    settings: dict[str, object] = {"updates_per_batch": 2, "clip_high": 9.0, "clip_low": 1.0}
    on_policy = gradient_norm(policy_folder, 1.0, **settings)
    assert gradient_norm(policy_folder, 1.5, off_policy="tis", **settings) == pytest.approx(1.5 * on_policy, rel=1e-3)


def test_the_difference_to_the_sampler_is_measured_before_the_first_update(policy_folder: Path) -> None:
    one = learner(policy_folder, algorithm=AlgorithmConfig(updates_per_batch=3))
    metrics = one.update(sampled_at(policy_folder, math.exp(0.25)))
    assert metrics["train/logp_difference"] == pytest.approx(0.25, abs=1e-5)
    assert metrics["train/logp_difference_max"] == pytest.approx(0.25, abs=1e-5)


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("loss", ["grpo", "dapo", "gspo", "cispo"])
def test_an_extreme_ratio_is_bounded_and_counted(policy_folder: Path, loss: str, advantage: float) -> None:
    one = learner(policy_folder, algorithm=AlgorithmConfig(loss=loss))  # type: ignore[arg-type]
    metrics = one.update(sampled_at(policy_folder, math.exp(120), advantage))
    assert math.isfinite(metrics["train/loss"])
    assert math.isfinite(metrics["train/grad_norm"])
    assert metrics["train/bounded_tokens_total"] == metrics["train/tokens"]


def weights(one: object) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in one.state_dict()}  # type: ignore[attr-defined]


def spike(one: object) -> torch.utils.hooks.RemovableHandle:
    """Makes the gradient of one layer NaN, as an overflow in a backward pass does."""
    head = one.policy.model.lm_head.weight  # type: ignore[attr-defined]
    return head.register_hook(lambda gradient: gradient * float("nan"))


def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted(policy_folder: Path) -> None:
    one = learner(policy_folder)
    before = weights(one)
    hook = spike(one)
    metrics = one.update(batch([sample(1, 12)]))
    hook.remove()
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(one).items())
    assert metrics["train/skipped_updates"] == 1
    assert one.update(batch([sample(1, 12)]))["train/skipped_updates"] == 0
    after = weights(one)
    assert any(not torch.equal(before[name], tensor) for name, tensor in after.items())
    assert all(tensor.isfinite().all() for tensor in after.values())


def test_a_run_of_gradients_that_are_not_finite_ends_the_training_by_name(policy_folder: Path) -> None:
    from configs.base import UserError

    one = learner(policy_folder, learner=LearnerConfig(max_nonfinite_steps=2))
    spike(one)
    one.update(batch([sample(1, 12)]))
    with pytest.raises(UserError, match=r"2 updates in a row.*max_nonfinite_steps"):
        one.update(batch([sample(1, 12)]))


@pytest.mark.parametrize(
    ("bad", "name"),
    [({"advantage": float("nan")}, "advantage"), ({"sampler_logp_T": (0.0, -math.inf)}, "log-probability")],
)
def test_a_sample_that_is_not_finite_is_refused_by_name(policy_folder: Path, bad: dict[str, object], name: str) -> None:
    fine = Sample((1, 2), (0, 1), (0.0, -1.0), 1.0, group=7)
    broken = replace(fine, **bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"group 7.*{name}"):
        learner(policy_folder).update(batch([fine, broken]))


def test_weights_that_are_not_finite_are_never_handed_out(policy_folder: Path) -> None:
    from configs.base import UserError

    one = learner(policy_folder)
    one.policy.model.lm_head.weight.data[3, 3] = float("inf")
    with pytest.raises(UserError, match=r"lm_head\.weight"):
        dict(one.state_dict())


def folder_with_dropout(family: str, out: Path) -> Path:
    """A tiny random model of another family whose config asks for dropout in every place it knows."""
    from transformers import LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM, Qwen2Config, Qwen2ForCausalLM

    sizes = {
        "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "attention_dropout": 0.5,
    }  # fmt: skip
    torch.manual_seed(0)
    model = {
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**sizes, num_key_value_heads=1)),
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**sizes)),
        "phi": lambda: PhiForCausalLM(PhiConfig(**sizes, resid_pdrop=0.5, embd_pdrop=0.5)),
    }[family]()
    model.save_pretrained(out)
    return out


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", ["qwen2", "llama", "phi"])
def test_updates_see_no_dropout_whatever_the_model_asks_for(family: str, checkpointing: bool, tmp_path: Path) -> None:
    plain = sample(3, 12)
    folder = folder_with_dropout(family, tmp_path)
    one = learner(folder, model=ModelConfig(gradient_checkpointing=checkpointing))
    (scores,) = one.score([plain])
    values = iter(scores)
    exact = replace(plain, sampler_logp_T=tuple(next(values) if chosen else 0.0 for chosen in plain.mask_T))
    assert one.update(batch([exact]))["train/logp_difference"] < 1e-5


def test_gradient_checkpointing_still_recomputes_the_layers(policy_folder: Path) -> None:
    one = learner(policy_folder, model=ModelConfig(gradient_checkpointing=True))
    calls = [0]
    one.policy.model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    one.update(batch([sample(3, 12)]))
    assert calls == [2]  # forward, and again in the backward pass


def record(folder: Path, what: Batch, **algorithm: object) -> UpdateRecord:
    one = learner(folder, algorithm=AlgorithmConfig(**algorithm), optimizer=UNCLIPPED)  # type: ignore[arg-type]
    one.update(what)
    assert one.record is not None
    return one.record


def test_the_record_compares_with_the_sampler_only_what_it_sampled_with_the_same_weights(policy_folder: Path) -> None:
    older = sampled_at(policy_folder, 1.5)
    fresh = replace(older, version=0)
    assert record(policy_folder, older).fit is None
    fit = record(policy_folder, fresh).fit
    assert fit is not None
    assert fit.bias == pytest.approx(-math.log(1.5), abs=1e-4)
    assert fit.largest == pytest.approx(math.log(1.5), abs=1e-4)
    mixed = replace(fresh, samples=(*fresh.samples, replace(sample(4, 9), weight_version=-1)))
    with_older = record(policy_folder, mixed).fit
    assert with_older is not None
    assert with_older.mean == pytest.approx(math.log(1.5), abs=1e-4)


@pytest.mark.parametrize("micro", [32, 4096])
@pytest.mark.parametrize("updates", [1, 2])
def test_a_healthy_update_has_a_healthy_record(policy_folder: Path, updates: int, micro: int) -> None:
    plain = [sample(i, 6 + i, (-1.0) ** i) for i in range(5)]
    scores = learner(policy_folder).score(plain)
    chosen = [iter(each) for each in scores]
    exact = [
        replace(s, sampler_logp_T=tuple(next(c) if m else 0.0 for m in s.mask_T))
        for s, c in zip(plain, chosen, strict=True)
    ]
    algorithm = AlgorithmConfig(off_policy="tis", kl_coef=0.1, entropy_coef=0.01, updates_per_batch=updates)
    one = learner(policy_folder, algorithm=algorithm, learner=LearnerConfig(max_tokens_per_microbatch=micro))
    for step in range(2):
        one.update(replace(batch(exact), version=None if step else 0))
        assert one.record is not None
        assert list(update_alarms(one.record, FLOAT32)) == []
    assert one.record is not None
    assert one.record.optimizer_steps == 2 * updates


def test_a_batch_without_samples_leaves_no_record(policy_folder: Path) -> None:
    one = learner(policy_folder)
    one.update(batch([sample(1, 8)]))
    one.update(Batch((), replace(batch([sample(1, 8)]).denominators, groups=0)))
    assert one.record is None


@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo", "cispo"])
def test_of_two_turns_in_a_sequence_the_better_becomes_likelier_and_the_worse_less(
    policy_folder: Path, loss: str
) -> None:
    ids, mask = (5, 7, 8, 9, 6, 30, 31), (0, 1, 1, 0, 0, 1, 1)
    one = learner(policy_folder, algorithm=AlgorithmConfig(loss=loss))
    plain = Sample(ids, mask, (0.0,) * 7, (1.0,) * 4 + (-1.0,) * 3)
    (before,) = one.score([plain])
    sampler = iter(before)
    taught = replace(plain, sampler_logp_T=tuple(next(sampler) if chosen else 0.0 for chosen in mask))
    one.update(batch([taught]))
    (after,) = one.score([plain])
    assert sum(after[:2]) > sum(before[:2])
    assert sum(after[2:]) < sum(before[2:])
    assert one.record is not None
    assert not list(update_alarms(one.record, FLOAT32))
