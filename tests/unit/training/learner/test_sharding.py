"""Two processes learn what one learns, under every sharding."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file, save_file

from configs.models import ModelConfig
from configs.training import AlgorithmConfig, LearnerConfig, OptimizerConfig
from tests.unit.training.learner.cases import SAMPLES, batch, learner, siblings
from training.checks.agreement import FLOAT32
from training.checks.updates import update_alarms
from training.learner.learner import Learner
from training.rollouts.batch import split_over_ranks
from training.types import Batch

MODES: list[tuple[str, int]] = [
    ("ddp", 2), ("fsdp2", 2), ("deepspeed", 0), ("deepspeed", 1), ("deepspeed", 2), ("deepspeed", 3),
]  # fmt: skip
SIBLINGS = siblings(0, 20, [2, 3, 4, 5, 6, 7])
HANDED_OUT = MODES[:2]  # one rank reads the model
ONCE_PER_UPDATE = MODES[:4]  # ZeRO 2 and 3 hold only parts of a gradient: they reduce every micro-batch by design


def two_processes(rank: int, port: int, folder: str, tied: str, out: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"LOCAL_RANK": str(rank), "DS_ACCELERATOR": "cpu"}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    for mode, stage in MODES:
        try:
            result: Any = life(rank, mode, stage, Path(folder), Path(out))
        except Exception as error:
            result = repr(error)
        torch.save(result, Path(out) / f"{mode}{stage}.{rank}.pt")
        torch.distributed.barrier()
    for mode, _ in HANDED_OUT:
        torch.save(losses_of_tied(rank, mode, Path(tied)), Path(out) / f"{mode}-tied.{rank}.pt")
    torch.save(of_siblings(rank, Path(folder)), Path(out) / f"siblings.{rank}.pt")
    torch.distributed.destroy_process_group()


def losses_of_tied(rank: int, mode: Any, folder: Path) -> list[float]:
    """Of three updates of a model whose head is its embedding."""
    share = Batch(tuple(split_over_ranks(SAMPLES, 2)[rank]), batch(SAMPLES).denominators)
    config = LearnerConfig(workers=2, sharding=mode, max_tokens_per_microbatch=32)
    one = learner(folder, learner=config, rank=rank, world=2)
    return [one.update(share)["train/loss"] for _ in range(3)]


def of_siblings(rank: int, folder: Path) -> tuple[bool, dict[str, float]]:
    """Whether this rank computes what its sequences begin with alike once, and an update of them."""
    share = Batch(tuple(split_over_ranks(SIBLINGS, 2)[rank]), batch(SIBLINGS).denominators)
    one = learner(folder, learner=LearnerConfig(workers=2, sharding="ddp"), rank=rank, world=2)
    return any(part.beginnings for part in one.microbatches(share.samples)), one.update(share)


def life(rank: int, mode: str, stage: int, folder: Path, out: Path) -> dict[str, Any]:
    """What one rank sees: two updates, a checkpoint, an update after it, the same from the checkpoint, a spike."""
    share = Batch(tuple(split_over_ranks(SAMPLES, 2)[rank]), batch(SAMPLES).denominators)

    def new(
        tokens: int, weight_decay: float = 0.0, dtype: Literal["float32", "bfloat16"] = "float32", kl_coef: float = 0.0
    ) -> Learner:
        config = LearnerConfig(
            workers=2,
            sharding=mode,  # type: ignore[arg-type]
            deepspeed_stage=stage,  # type: ignore[arg-type]
            max_tokens_per_microbatch=tokens,
        )
        optimizer = OptimizerConfig(lr=1e-2, warmup_steps=0, weight_decay=weight_decay)
        model = ModelConfig(dtype=dtype)
        algorithm = AlgorithmConfig(entropy_coef=0.01, kl_coef=kl_coef)
        return learner(
            folder, model=model, learner=config, optimizer=optimizer, algorithm=algorithm, rank=rank, world=2
        )

    one = new(tokens=32)
    first = [one.update(share) for _ in range(2)]
    records = [one.record]
    two_updates = weights(one)
    checkpoint = out / f"{mode}{stage}"
    checkpoint.mkdir(exist_ok=True)
    one.save(checkpoint)
    torch.distributed.barrier()
    reductions = count_reductions(one, share)
    three_updates = weights(one)
    with_spike(one, share, only=rank == 1)
    after_spike, norms = weights(one), one.update(share)["train/grad_norm"]

    other = new(tokens=4096, weight_decay=0.25)
    other.load(checkpoint)
    settings = other._sharded.optimizer.param_groups[0]  # type: ignore[attr-defined]
    restored = weights(other)
    single = count_reductions(other, share)
    again = new(tokens=32)
    again.load(checkpoint)
    again.update(share)
    records.append(again.record)

    with count_reads() as reads:
        lower = new(tokens=32, dtype="bfloat16", kl_coef=0.1)
    reference = lower._reference.policy  # type: ignore[union-attr]
    seen: set[tuple[str, bool]] = set()
    lower.policy.model.model.layers[0].mlp.down_proj.register_forward_hook(
        lambda module, inputs, output: seen.add((str(output.dtype), torch.is_autocast_enabled("cpu")))
    )
    rounded = lower.update(share)
    held = save_and_count(lower, out / f"{mode}{stage}-model")
    return {
        "reads": reads[0],
        "held": held,
        "reference": sum(len(local(each).flatten()) for each in reference.parameters()) / size(reference),
        "kl": rounded["train/kl"],
        "saved": weights(lower),
        "records": records,
        "losses": [metrics["train/loss"] for metrics in first],
        "norms": [metrics["train/grad_norm"] for metrics in first],
        "two_updates": two_updates,
        "restored": restored,
        "weight_decay": settings["weight_decay"],
        "three_updates": three_updates,
        "restored_and_updated": weights(again),
        "after_spike": after_spike,
        "norm_after_spike": norms,
        "reductions": (reductions, single),
        "bfloat16": (rounded["train/loss"], rounded["train/grad_norm"]),
        "bfloat16_unit": lower.record.unit_gradients if lower.record else (),
        "bfloat16_products": seen,
        "bfloat16_weights": {str(tensor.dtype) for tensor in weights(lower).values()},
    }


@contextmanager
def count_reads() -> Iterator[list[int]]:
    """How often this process reads a model from a folder."""
    from transformers import AutoModelForCausalLM

    read, reads = AutoModelForCausalLM.from_pretrained, [0]

    def counted(*arguments: Any, **settings: Any) -> Any:
        reads[0] += 1
        return read(*arguments, **settings)

    AutoModelForCausalLM.from_pretrained = counted
    try:
        yield reads
    finally:
        AutoModelForCausalLM.from_pretrained = read


def save_and_count(one: Learner, folder: Path) -> int:
    """How many of the gathered tensors this process holds at the same time while it saves the model."""
    gathered: list[weakref.ref[torch.Tensor]] = []
    held, state_dict = 0, one._tensors

    def watched() -> Iterator[tuple[str, torch.Tensor]]:
        nonlocal held
        for name, tensor in state_dict():
            copy = tensor.clone()
            gathered.append(weakref.ref(copy))
            held = max(held, sum(each() is not None for each in gathered))
            yield name, copy

    one._tensors = watched  # type: ignore[method-assign]
    one.save_model(folder)
    one._tensors = state_dict  # type: ignore[method-assign]
    return held


def local(tensor: Any) -> torch.Tensor:
    part: torch.Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def weights(one: Learner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in one.state_dict()}


def count_reductions(one: Learner, share: Batch) -> int:
    """Gradient reductions of one update. The learner's own few all-reduces are the same for any cut."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        one.update(share)
    names = [event.name for event in profile.events()]
    return sum(name.startswith("c10d::") and "reduce" in name for name in names)


def with_spike(one: Learner, share: Batch, only: bool) -> None:
    """One update in which one rank's gradient is NaN, as after an overflow."""

    def poison(module: Any, arguments: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient * math.nan)

    hook = one.policy.model.lm_head.register_forward_hook(poison) if only else None
    one.update(share)
    if hook is not None:
        hook.remove()


def tied_model(folder: Path, target: Path) -> Path:
    """A copy of the model with one matrix for the embedding and the head."""
    shutil.copytree(folder, target)
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": True}
    (target / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    return target


@pytest.fixture(scope="module")
def of_two(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    tied = tied_model(policy_folder, out / "tied")
    torch.multiprocessing.spawn(two_processes, (port, str(policy_folder), str(tied), str(out)), nprocs=2)
    return out


def result(of_two: Path, mode: str, stage: int, rank: int = 0) -> dict[str, Any]:
    found = torch.load(of_two / f"{mode}{stage}.{rank}.pt", weights_only=False)
    assert not isinstance(found, str), found
    return dict(found)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


@pytest.mark.parametrize(("mode", "stage"), MODES)
def test_no_check_of_an_update_is_alarmed_by_how_the_model_is_shared(mode: str, stage: int, of_two: Path) -> None:
    for rank in (0, 1):
        before, resumed = result(of_two, mode, stage, rank)["records"]
        assert list(update_alarms(before, FLOAT32)) == []
        assert list(update_alarms(resumed, FLOAT32)) == []
        assert (before.optimizer_steps, resumed.optimizer_steps) == (2, 3)
        assert before.unit_gradients == pytest.approx((1.0,))


@pytest.mark.parametrize(("mode", "stage"), MODES)
def test_two_processes_learn_what_one_learns(mode: str, stage: int, of_two: Path, policy_folder: Path) -> None:
    one = learner(policy_folder)
    expected = [one.update(batch(SAMPLES)) for _ in range(2)]
    found = result(of_two, mode, stage)
    assert found["losses"] == pytest.approx([metrics["train/loss"] for metrics in expected], abs=1e-5)
    assert found["norms"] == pytest.approx([metrics["train/grad_norm"] for metrics in expected], rel=1e-3)
    state = found["two_updates"]
    assert all(torch.allclose(tensor, state[name], atol=2e-4) for name, tensor in one.state_dict())


def test_two_processes_that_compute_a_prompt_once_learn_what_one_learns(of_two: Path, policy_folder: Path) -> None:
    one = learner(policy_folder)
    one.shares_beginnings = False
    expected = one.update(batch(SIBLINGS))
    for rank in (0, 1):
        shares, metrics = torch.load(of_two / f"siblings.{rank}.pt")
        assert shares
        assert metrics["train/loss"] == pytest.approx(expected["train/loss"], abs=1e-5)
        assert metrics["train/grad_norm"] == pytest.approx(expected["train/grad_norm"], rel=1e-3)


@pytest.mark.parametrize(("mode", "stage"), MODES)
def test_a_restored_sharding_goes_on_bit_for_bit(mode: str, stage: int, of_two: Path) -> None:
    found = result(of_two, mode, stage)
    assert equal(found["restored"], found["two_updates"])
    assert equal(found["restored_and_updated"], found["three_updates"])


@pytest.mark.parametrize(("mode", "stage"), MODES)
def test_a_restored_sharding_has_the_optimiser_settings_that_it_was_given(mode: str, stage: int, of_two: Path) -> None:
    assert result(of_two, mode, stage)["weight_decay"] == 0.25


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("mode", "stage"), MODES)
def test_no_rank_steps_when_one_rank_s_gradient_is_not_finite(mode: str, stage: int, rank: int, of_two: Path) -> None:
    found = result(of_two, mode, stage, rank)
    assert equal(found["after_spike"], found["three_updates"])
    assert math.isfinite(found["norm_after_spike"])


@pytest.mark.parametrize(("mode", "stage"), ONCE_PER_UPDATE)
def test_gradients_are_reduced_once_per_update_however_many_micro_batches(mode: str, stage: int, of_two: Path) -> None:
    many, single = result(of_two, mode, stage)["reductions"]
    assert many == single > 0


@pytest.mark.parametrize(("mode", "stage"), MODES)
def test_bfloat16_is_what_each_sharding_computes_in_and_not_what_it_trains(
    mode: str, stage: int, of_two: Path, policy_folder: Path
) -> None:
    """DeepSpeed switched the autocast around it off, and computed in float32. FSDP2 casts layer by layer: under an
    autocast it held a bfloat16 copy of the whole model."""
    found = result(of_two, mode, stage)
    assert found["bfloat16_products"] == {("torch.bfloat16", mode != "fsdp2")}
    assert found["bfloat16_weights"] == {"torch.float32"}
    expected = learner(policy_folder).update(batch(SAMPLES))
    loss, norm = found["bfloat16"]
    assert loss == pytest.approx(expected["train/loss"], abs=0.02)
    assert norm == pytest.approx(expected["train/grad_norm"], rel=0.1)
    assert found["bfloat16_unit"] == pytest.approx((1.0,), abs=0.01)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("mode", "stage"), MODES)
def test_the_reference_is_spread_as_the_policy_is_and_equals_it_at_first(
    mode: str, stage: int, rank: int, of_two: Path
) -> None:
    """It was whole and float32 on every rank, beside a policy of which a rank holds a part."""
    found = result(of_two, mode, stage, rank)
    assert found["reference"] == pytest.approx(0.5 if mode == "fsdp2" else 1.0, abs=0.02)
    assert found["kl"] == 0


@pytest.mark.parametrize(("mode", "stage"), HANDED_OUT)
def test_one_rank_reads_the_model_and_the_others_get_their_parts(mode: str, stage: int, of_two: Path) -> None:
    assert [result(of_two, mode, stage, rank)["reads"] for rank in (0, 1)] == [2, 0]  # policy and reference


@pytest.mark.parametrize("mode", [mode for mode, _ in HANDED_OUT])
def test_a_head_that_is_the_embedding_stays_it_when_weights_are_handed_out(mode: str, of_two: Path) -> None:
    one = learner(of_two / "tied")
    expected = [one.update(batch(SAMPLES))["train/loss"] for _ in range(3)]
    assert torch.load(of_two / f"{mode}-tied.0.pt") == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("mode", "stage"), MODES)
def test_one_rank_holds_the_model_that_is_saved(mode: str, stage: int, of_two: Path) -> None:
    """Every rank kept a copy of the whole model in its main memory, to write none."""
    saved = load_file(of_two / f"{mode}{stage}-model" / "model.safetensors")
    assert equal(saved, result(of_two, mode, stage)["saved"])
    held = [result(of_two, mode, stage, rank)["held"] for rank in (0, 1)]
    assert held[0] == len(saved)
    assert held[1] <= 2
