"""Two processes learn what one learns, under every sharding."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.training import LearnerConfig
from tests.unit.training.learner.cases import SAMPLES, batch, learner
from training.rollouts.batch import split_over_ranks
from training.types import Batch

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
