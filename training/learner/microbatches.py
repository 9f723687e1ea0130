"""Samples to tensors: cut into micro-batches under a budget of padded tokens. Deterministic."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from training.learner.pixels import Pixels
from training.learner.prefixes import parts, what_is_computed
from training.types import Sample

ReadPixels = Callable[[Sequence[Sample]], Pixels | None]


@dataclass(frozen=True)
class Alike:
    """Sequences of which several are alike: each kind of them is computed once."""

    examples: Tensor  # [K] int64, a sequence of each kind
    kinds: Tensor  # [B] int64, which kind a sequence is

    @classmethod
    def of(cls, rows: Sequence[Hashable]) -> Self:
        examples: dict[Hashable, int] = {}
        for sequence, row in enumerate(rows):
            examples.setdefault(row, sequence)
        kinds = {row: kind for kind, row in enumerate(examples)}
        return cls(torch.tensor(list(examples.values())), torch.tensor([kinds[row] for row in rows]))

    def to(self, device: torch.device) -> Alike:
        return Alike(self.examples.to(device), self.kinds.to(device))


@dataclass(frozen=True)
class Beginnings:
    """The first `tokens` tokens of sequences, where several begin alike."""

    tokens: int
    alike: Alike

    def to(self, device: torch.device) -> Beginnings:
        return Beginnings(self.tokens, self.alike.to(device))


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
    advantage: Tensor  # [B] float32; [B, T] where the turns of a sequence have their own
    order: tuple[int, ...] = ()  # position of each sequence in the rank's samples
    pixels: Pixels | None = None  # of the `distinct` sequences; it stays on the CPU until they are computed
    twins: Alike | None = None  # equal sequences, with the same tokens chosen
    beginnings: Beginnings | None = None  # of the `distinct` sequences

    def to(self, device: torch.device) -> MicroBatch:
        token_ids, mask, logp, advantage = (
            tensor.to(device, non_blocking=True)
            for tensor in (self.token_ids, self.mask, self.sampler_logp, self.advantage)
        )
        twins, beginnings = self.twins and self.twins.to(device), self.beginnings and self.beginnings.to(device)
        return MicroBatch(token_ids, mask, logp, advantage, self.order, self.pixels, twins, beginnings)

    def distinct(self) -> tuple[Tensor, Tensor]:
        """Token ids and mask of the sequences that are to be computed, [D, T] each."""
        if self.twins is None:
            return self.token_ids, self.mask
        return self.token_ids[self.twins.examples], self.mask[self.twins.examples]

    def of_each(self, computed: Tensor) -> Tensor:
        """What was computed of the distinct sequences, [D, ...], for every sequence, [B, ...]."""
        return computed if self.twins is None else computed[self.twins.kinds]


def microbatches(
    samples: Sequence[Sample],
    max_tokens: int,
    twins: bool = False,
    beginnings: bool = False,
    read: ReadPixels | None = None,
) -> list[MicroBatch]:
    """Sequences of like length together; sequences times longest sequence stays within `max_tokens`. With `twins`,
    equal sequences count once; with `beginnings`, sequences that begin alike may be together instead, and a beginning
    counts once. `read`: what the model takes of the samples' images. Raises ValueError for a sequence that does not fit
    alone, and for a number that is not finite."""
    longest = max((len(sample.token_ids_T) for sample in samples), default=0)
    if longest > max_tokens:
        raise ValueError(
            f"a sequence of {longest} tokens is over learner.max_tokens_per_microbatch ({max_tokens}): raise it"
        )
    found = parts(samples, max_tokens, twins, beginnings)
    return [collate([samples[i] for i in part.members], part.members, twins, part.shared, read) for part in found]


def collate(
    samples: Sequence[Sample],
    order: tuple[int, ...] = (),
    twins: bool = False,
    shared: int = 0,
    read: ReadPixels | None = None,
) -> MicroBatch:
    """One micro-batch of all `samples`, padded to the longest. With `twins`, equal ones are computed once; the first
    `shared` tokens are computed once for each kind. Raises ValueError for a number that is not finite."""
    for sample in samples:
        _check_finite(sample)

    def padded(values: list[Sequence[float]], dtype: torch.dtype) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence([torch.tensor(each, dtype=dtype) for each in values], batch_first=True)

    alike = Alike.of([what_is_computed(sample) for sample in samples]) if twins else None
    if alike is not None and len(alike.examples) == len(samples):
        alike = None
    distinct = samples if alike is None else [samples[i] for i in alike.examples.tolist()]
    return MicroBatch(
        padded([sample.token_ids_T for sample in samples], torch.int64),
        padded([sample.mask_T for sample in samples], torch.float32),
        padded([sample.sampler_logp_T for sample in samples], torch.float32),
        _advantages(samples),
        order,
        read(distinct) if read else None,
        alike,
        Beginnings(shared, Alike.of([tuple(each.token_ids_T[:shared]) for each in distinct])) if shared else None,
    )


def _advantages(samples: Sequence[Sample]) -> Tensor:
    """[B], or [B, T] as soon as one of the samples has advantages for each token; 0 for the padding."""
    given = [sample.advantage for sample in samples]
    if all(isinstance(each, int | float) for each in given):
        return torch.tensor(given, dtype=torch.float32)
    rows = [
        torch.as_tensor(sample.advantage, dtype=torch.float32).expand(len(sample.token_ids_T)) for sample in samples
    ]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def padding_microbatch(token_id: int = 0) -> MicroBatch:
    """Without chosen tokens, for a rank with fewer micro-batches than the others: every rank must run the same number
    of forward and backward passes."""
    zeros = torch.zeros(1, 2)
    return MicroBatch(torch.full((1, 2), token_id), zeros, zeros, torch.zeros(1))


def _check_finite(sample: Sample) -> None:
    if not np.isfinite(sample.advantage).all():
        raise ValueError(f"a sample of group {sample.group} has the advantage {sample.advantage}: it must be finite")
    for position, logp in enumerate(sample.sampler_logp_T):
        if not math.isfinite(logp):
            raise ValueError(
                f"a sample of group {sample.group} has the sampler's log-probability {logp} at token {position}: it "
                "must be finite; the replica that sampled it is to blame"
            )
