"""The mathematics of the learner: advantages, losses, batches, and one process against two."""

from __future__ import annotations

import errno
import random
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.training import AlgorithmConfig, LearnerConfig, ModelConfig, OptimizerConfig
from training.algorithms.advantages import ADVANTAGES, group_centered, group_normalized, leave_one_out
from training.algorithms.losses import LOSSES, LossInputs, kl_to_reference
from training.algorithms.off_policy import off_policy_weight
from training.learner.learner import Learner, checkpoint
from training.learner.microbatches import microbatches
from training.learner.schedule import learning_rate
from training.rollouts.batch import split_over_ranks
from training.tracking.intervals import paired_difference, proportion
from training.types import Batch, Denominators, Sample


def sample(seed: int, length: int, advantage: float = 1.0) -> Sample:
    rng = random.Random(seed)
    mask = [0, *(int(rng.random() < 0.4) for _ in range(length - 2)), 1]
    ids = tuple(rng.randrange(250) for _ in range(length))
    return Sample(ids, tuple(mask), tuple(-1.0 * m for m in mask), advantage)


def batch(samples: list[Sample]) -> Batch:
    return Batch(tuple(samples), Denominators(sum(s.chosen for s in samples), len(samples), 1))


SAMPLES = [sample(i, 5 + 3 * i, (-1.0) ** i) for i in range(7)]


def test_advantages_by_hand() -> None:
    assert group_centered([1.0, 1.0, 1.0]) == [0.0, 0.0, 0.0]
    assert leave_one_out([3.0, 0.0]) == [3.0, -3.0]
    assert group_normalized([2.0, 0.0]) == pytest.approx([1 / 1.0001, -1 / 1.0001])


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=16))
def test_advantages_sum_to_zero(returns: list[float]) -> None:
    assert all(abs(sum(advantage(returns))) < 1e-6 * 16 * 10 / 1e-4 for advantage in ADVANTAGES.values())
    assert sum(group_centered(returns)) == pytest.approx(0, abs=1e-9)


def inputs(ratio: list[float], advantage: float) -> LossInputs:
    behaviour = torch.zeros(1, len(ratio))
    logp = torch.log(torch.tensor([ratio]))
    return LossInputs(logp, behaviour, torch.tensor([advantage]), torch.ones_like(logp), torch.ones_like(logp))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # ratios 1.0 and 1.5, advantage 2, clip at 1.28: -(2 + 2.56)
        ("grpo", -4.56 / 2 / 1),  # mean of the sequence, one sequence
        ("dr_grpo", -4.56 / 1),  # sum over tokens, one sequence
        ("dapo", -4.56 / 2),  # two tokens
        ("gspo", -2 * min(1.5**0.5, 1.28)),  # geometric mean of the ratios
        ("cispo", -(1.0 * 2 * 0.0 + 1.28 * 2 * 0.4054651) / 2),  # weight times log-probability
    ],
)
def test_losses_by_hand(name: str, expected: float) -> None:
    loss = LOSSES[name](inputs([1.0, 1.5], 2.0), Denominators(2, 1), AlgorithmConfig())
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_a_ratio_past_the_bound_gives_no_gradient_but_for_cispo() -> None:
    for name, loss in LOSSES.items():
        x = inputs([2.0, 2.0], 1.0)
        logp = x.learner_logp.clone().requires_grad_()
        loss(LossInputs(logp, *(getattr(x, f) for f in ("behaviour_logp", "advantage", "mask", "weight"))),
             Denominators(2, 1), AlgorithmConfig()).backward()  # fmt: skip
        assert bool((logp.grad == 0).all()) == (name != "cispo")


def test_off_policy_corrections_by_hand() -> None:
    learner, sampler = torch.log(torch.tensor([[3.0, 1.0, 0.1]])), torch.zeros(1, 3)
    mask = torch.ones(1, 3)

    def weights(kind: str) -> list[float]:
        config = AlgorithmConfig(off_policy=kind)  # type: ignore[arg-type]
        return off_policy_weight(learner, sampler, mask, config)[0].tolist()

    assert weights("none") == [1, 1, 1]
    assert weights("tis") == pytest.approx([2.0, 1.0, 0.1])
    assert weights("icepop") == pytest.approx([0.0, 1.0, 0.0])
    assert weights("sequence_mask") == [1, 1, 1]  # geometric mean 0.67 lies within 0.5 .. 2
    assert float(kl_to_reference(learner, learner, mask)) == 0


@given(st.lists(st.integers(3, 40), min_size=0, max_size=30), st.integers(1, 4))
@settings(deadline=None)
def test_cutting_over_ranks_and_micro_batches_loses_and_doubles_nothing(lengths: list[int], world: int) -> None:
    samples = [sample(i, n) for i, n in enumerate(lengths)]
    shares = split_over_ranks(samples, world)
    assert sorted(s.token_ids_T for share in shares for s in share) == sorted(s.token_ids_T for s in samples)
    for share in shares:
        rows = microbatches(share, 64)
        assert sorted(i for row in rows for i in row.order) == list(range(len(share)))
        assert all(row.token_ids.numel() <= 64 for row in rows)


def test_a_sequence_over_the_budget_names_the_setting() -> None:
    with pytest.raises(ValueError, match="max_tokens_per_microbatch"):
        microbatches([sample(0, 50)], 40)


def learner(folder: Path, **changes: Any) -> Learner:
    parts: dict[str, Any] = {
        "model": ModelConfig(),
        "optimizer": OptimizerConfig(lr=1e-2, warmup_steps=0),
        "algorithm": AlgorithmConfig(entropy_coef=0.01),
        "learner": LearnerConfig(max_tokens_per_microbatch=64, logprob_chunk_tokens=16),
        "model_folder": str(folder),
        "temperature": 0.7,
    }
    return Learner(**parts | changes)


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


def test_updates_raise_the_probability_of_what_paid(policy_folder: Path) -> None:
    one = learner(policy_folder)
    before = sum(map(sum, one.score([sample(1, 12, 1.0)])))
    for _ in range(5):
        one.update(batch([sample(1, 12, 1.0)]))
    assert sum(map(sum, one.score([sample(1, 12, 1.0)]))) > before


def test_a_batch_without_samples_changes_nothing(policy_folder: Path) -> None:
    one = learner(policy_folder)
    before = {name: tensor.clone() for name, tensor in one.state_dict()}
    one.update(Batch((), Denominators(0, 0)))
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


class FullDisk:
    def save(self, folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def load(self, folder: Path) -> None: ...


class Small:
    def save(self, folder: Path) -> None:
        (folder / "rank0.pt").write_bytes(b"state")

    def load(self, folder: Path) -> None: ...


def test_a_full_disk_is_named_and_leaves_earlier_checkpoints(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.write(tmp_path, step, Small(), {}, keep=2)
    with pytest.raises(checkpoint.CheckpointError, match=r"step 4 .*No space left.*storage_path"):
        checkpoint.write(tmp_path, 4, FullDisk(), {})
    assert checkpoint.steps(tmp_path) == [2, 3]
    (tmp_path / "step-00000003" / "rank0.pt").write_bytes(b"other")
    with pytest.raises(checkpoint.CheckpointError, match="damaged"):
        checkpoint.restore(tmp_path / "step-00000003", Small())


def test_schedules_warm_up_and_end_where_they_say() -> None:
    config = OptimizerConfig(lr=1.0, warmup_steps=2, schedule="linear", final_lr_fraction=0.1)
    assert [round(learning_rate(config, step, 12), 3) for step in (0, 1, 2, 12)] == [0.5, 1.0, 1.0, 0.1]


def test_intervals_by_hand() -> None:
    assert str(proportion(0, 10)) == "0.000 [0.000, 0.278]"
    assert str(paired_difference([0, 1], [1, 1]).value) == "0.5"


MODES: list[tuple[str, int]] = [("ddp", 2), ("fsdp2", 2), ("deepspeed", 1), ("deepspeed", 2), ("deepspeed", 3)]


def two_processes(rank: int, port: int, folder: str, out: str) -> None:
    import os

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"LOCAL_RANK": str(rank), "DS_ACCELERATOR": "cpu"}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    whole = batch(SAMPLES)
    for mode, stage in MODES:
        try:
            config = LearnerConfig(
                workers=2,
                sharding=mode,
                deepspeed_stage=stage,
                max_tokens_per_microbatch=64,  # type: ignore[arg-type]
            )
            one = learner(Path(folder), learner=config, rank=rank, world=2)
            share = Batch(tuple(split_over_ranks(SAMPLES, 2)[rank]), whole.denominators)
            losses = [one.update(share)["train/loss"] for _ in range(2)]
            state = {name: tensor.clone() for name, tensor in one.state_dict()}
            result: Any = (losses, state)
        except Exception as error:
            result = repr(error)
        if rank == 0:
            torch.save(result, Path(out) / f"{mode}{stage}.pt")
        torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def of_two(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(two_processes, (port, str(policy_folder), str(out)), nprocs=2)
    return out


@pytest.mark.parametrize(("mode", "stage"), MODES)
def test_two_processes_learn_what_one_learns(mode: str, stage: int, of_two: Path, policy_folder: Path) -> None:
    one = learner(policy_folder)
    expected = [one.update(batch(SAMPLES))["train/loss"] for _ in range(2)]
    result = torch.load(of_two / f"{mode}{stage}.pt", weights_only=False)
    assert not isinstance(result, str), result
    losses, state = result
    assert losses == pytest.approx(expected, abs=1e-5)
    assert all(torch.allclose(tensor, state[name], atol=2e-4) for name, tensor in one.state_dict())
