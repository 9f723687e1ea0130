"""Samples to tensors: cut into micro-batches under a budget of padded tokens. Deterministic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.learner.prefixes import parts
from training.types import Sample


@dataclass(frozen=True)
class Beginnings:
    """The first `tokens` tokens of a micro-batch's sequences, where several begin alike: each kind is computed once."""

    tokens: int
    examples: Tensor  # [U] int64, a sequence with each kind of beginning
    kinds: Tensor  # [B] int64, which of them a sequence begins with

    def to(self, device: torch.device) -> Beginnings:
        return Beginnings(self.tokens, self.examples.to(device), self.kinds.to(device))


@dataclass(frozen=True)
class MicroBatch:
    """Some of a rank's sequences, right-padded: real tokens never see the padding, since attention is causal.

    MicroBatch(
        token_ids=[[5, 6, 8, 2], [5, 9, 0, 0]],  # the second has two tokens, then padding
        mask=[[0, 0, 1, 1], [0, 1, 0, 0]],
        sampler_logp=[[0, 0, -0.1, -0.2], [0, -0.7, 0, 0]],
        advantage=[0.5, -0.5],
        order=(3, 0),  # they are the samples 3 and 0 of the rank's share
    )
    """

    token_ids: Tensor  # [B, T] int64
    mask: Tensor  # [B, T] float32
    sampler_logp: Tensor  # [B, T] float32
    advantage: Tensor  # [B] float32
    order: tuple[int, ...] = ()  # position of each sequence in the rank's samples
    beginnings: Beginnings | None = None

    def to(self, device: torch.device) -> MicroBatch:
        token_ids, mask, logp, advantage = (
            tensor.to(device, non_blocking=True)
            for tensor in (self.token_ids, self.mask, self.sampler_logp, self.advantage)
        )
        return MicroBatch(token_ids, mask, logp, advantage, self.order, self.beginnings and self.beginnings.to(device))


def microbatches(samples: Sequence[Sample], max_tokens: int, share: bool = False) -> list[MicroBatch]:
    """Sequences of like length together; sequences times longest sequence stays within `max_tokens`. With `share`,
    sequences that begin alike may be together instead, and a beginning counts once. Raises ValueError for a sequence
    that does not fit alone, and for one with a number that is not finite."""
    longest = max((len(sample.token_ids_T) for sample in samples), default=0)
    if longest > max_tokens:
        raise ValueError(
            f"a sequence of {longest} tokens is over learner.max_tokens_per_microbatch ({max_tokens}): raise it"
        )
    found = parts(samples, max_tokens, share)
    return [collate([samples[i] for i in part.members], part.members, part.shared) for part in found]


def collate(samples: Sequence[Sample], order: tuple[int, ...] = (), shared: int = 0) -> MicroBatch:
    """One micro-batch of all `samples`, padded to the longest, whose first `shared` tokens are computed once for each
    kind. Raises ValueError for a number that is not finite."""
    for sample in samples:
        _check_finite(sample)

    def padded(values: list[Sequence[float]], dtype: torch.dtype) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence([torch.tensor(each, dtype=dtype) for each in values], batch_first=True)

    token_ids = padded([sample.token_ids_T for sample in samples], torch.int64)
    return MicroBatch(
        token_ids,
        padded([sample.mask_T for sample in samples], torch.float32),
        padded([sample.sampler_logp_T for sample in samples], torch.float32),
        torch.tensor([sample.advantage for sample in samples], dtype=torch.float32),
        order,
        _beginnings(token_ids, shared) if shared else None,
    )


def _beginnings(token_ids: Tensor, tokens: int) -> Beginnings:
    rows = [tuple(row) for row in token_ids[:, :tokens].tolist()]
    examples: dict[tuple[int, ...], int] = {}
    for sequence, row in enumerate(rows):
        examples.setdefault(row, sequence)
    kinds = {row: kind for kind, row in enumerate(examples)}
    return Beginnings(tokens, torch.tensor(list(examples.values())), torch.tensor([kinds[row] for row in rows]))


def padding_microbatch(token_id: int = 0) -> MicroBatch:
    """Without chosen tokens, for a rank with fewer micro-batches than the others: every rank must run the same number
    of forward and backward passes."""
    zeros = torch.zeros(1, 2)
    return MicroBatch(torch.full((1, 2), token_id), zeros, zeros, torch.zeros(1))


def _check_finite(sample: Sample) -> None:
    if not math.isfinite(sample.advantage):
        raise ValueError(f"a sample of group {sample.group} has the advantage {sample.advantage}: it must be finite")
    for position, logp in enumerate(sample.sampler_logp_T):
        if not math.isfinite(logp):
            raise ValueError(
                f"a sample of group {sample.group} has the sampler's log-probability {logp} at token {position}: it "
                "must be finite; the replica that sampled it is to blame"
            )
