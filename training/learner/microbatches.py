"""Samples to tensors: balanced over ranks, cut into micro-batches under a budget of padded tokens. Deterministic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.types import Sample


@dataclass(frozen=True)
class MicroBatch:
    """Right-padded: real tokens never see the padding, since attention is causal."""

    token_ids: Tensor  # [B, T] int64
    mask: Tensor  # [B, T] float32
    sampler_logp: Tensor  # [B, T] float32
    advantage: Tensor  # [B] float32
    order: tuple[int, ...] = ()  # position of each row in the rank's samples

    def to(self, device: torch.device) -> MicroBatch:
        token_ids, mask, logp, advantage = (
            tensor.to(device, non_blocking=True)
            for tensor in (self.token_ids, self.mask, self.sampler_logp, self.advantage)
        )
        return MicroBatch(token_ids, mask, logp, advantage, self.order)


def microbatches(samples: Sequence[Sample], max_tokens: int) -> list[MicroBatch]:
    """Sequences of like length together; rows times longest row stays within `max_tokens`. Raises ValueError for a
    sequence that does not fit alone."""
    order = sorted(range(len(samples)), key=lambda i: len(samples[i].token_ids_T))
    batches: list[list[int]] = []
    for index in order:
        length = len(samples[index].token_ids_T)
        if length > max_tokens:
            raise ValueError(
                f"a sequence of {length} tokens is over learner.max_tokens_per_microbatch ({max_tokens}): raise it"
            )
        if batches and length * (len(batches[-1]) + 1) <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return [collate([samples[i] for i in rows], tuple(rows)) for rows in batches]


def collate(samples: Sequence[Sample], order: tuple[int, ...] = ()) -> MicroBatch:
    def padded(rows: list[Sequence[float]], dtype: torch.dtype) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence([torch.tensor(row, dtype=dtype) for row in rows], batch_first=True)

    return MicroBatch(
        padded([sample.token_ids_T for sample in samples], torch.int64),
        padded([sample.mask_T for sample in samples], torch.float32),
        padded([sample.sampler_logp_T for sample in samples], torch.float32),
        torch.tensor([sample.advantage for sample in samples], dtype=torch.float32),
        order,
    )


def empty_like_one(token_id: int = 0) -> MicroBatch:
    """A micro-batch without chosen tokens: a rank that has none left takes part in the others' collectives with it."""
    zeros = torch.zeros(1, 2)
    return MicroBatch(torch.full((1, 2), token_id), zeros, zeros, torch.zeros(1))
