"""Log-probabilities of chosen tokens. Logits over the whole vocabulary are held for one chunk of tokens at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

Head = Callable[[Tensor], Tensor]

BLOCK_BYTES = 16 * 2**20  # of float32 logits that are worked on together: what a processor's cache holds


def chosen_logprobs(
    hidden: Tensor,
    head: Head,
    token_ids: Tensor,
    mask: Tensor,
    temperature: float,
    chunk: int,
    entropy_gradient: bool = True,
) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy at every chosen token.

    hidden [B, T, D]: position t holds what predicts token t + 1; token_ids, mask [B, T]. `head` gives the logits of
    hidden states [N, D] in a tensor of their own: the backward pass overwrites it. Returns two [B, T] float32 tensors
    (0 where nothing was chosen), under the distribution softmax(logits / temperature). Only the positions before a
    chosen token go through the head, `chunk` of them at a time. The last chunk's logits are kept for the backward pass,
    those of the others are computed again there. The entropy has a gradient only with `entropy_gradient`.
    """
    where = mask[:, 1:].bool()
    *before, last = zip(hidden[:, :-1][where].split(chunk), token_ids[:, 1:][where].split(chunk), strict=True)
    score = partial(_score, head, temperature=temperature, entropy_gradient=entropy_gradient)
    parts = [checkpoint(score, *each, use_reentrant=False) for each in before] + [score(*last)]
    logp = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)
    entropy = torch.zeros_like(logp)
    sequences, positions = torch.nonzero(where, as_tuple=True)
    at = (sequences, positions + 1)
    logp = logp.index_put(at, torch.cat([part[0] for part in parts]))
    entropy = entropy.index_put(at, torch.cat([part[1] for part in parts]))
    return logp, entropy


def _score(
    head: Head, states: Tensor, targets: Tensor, temperature: float, entropy_gradient: bool
) -> tuple[Tensor, Tensor]:
    scored: tuple[Tensor, Tensor] = _Scores.apply(head(states), targets, temperature, entropy_gradient)
    return scored


class _Scores(torch.autograd.Function):
    """logits [N, V], targets [N] -> log-probability and entropy [N], float32, of p = softmax(logits / temperature).

    Beside the logits themselves it holds one block of them in float32; their gradient takes their place:
    d log p[target] / d logits[j] = ([j = target] - p[j]) / temperature,
    d entropy / d logits[j] = -p[j] (log p[j] + entropy) / temperature.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, temperature: float, entropy_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.temperature = temperature
        logp = torch.empty(len(targets), dtype=torch.float32, device=logits.device)
        entropy = torch.empty_like(logp)
        for rows in _blocks(logits):
            scores = torch.log_softmax(logits[rows].float() / temperature, dim=-1)
            logp[rows] = scores.gather(-1, targets[rows, None])[:, 0]
            entropy[rows] = scores.mul_(scores.exp()).sum(-1).neg_()
        ctx.save_for_backward(logits, targets, entropy)
        if not entropy_gradient:
            ctx.mark_non_differentiable(entropy)
        return logp, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_logp: Tensor | None, of_entropy: Tensor | None) -> tuple[Tensor, None, None, None]:
        logits, targets, entropy = ctx.saved_tensors
        of_logp = torch.zeros_like(entropy) if of_logp is None else of_logp
        for rows in _blocks(logits):
            scores = torch.log_softmax(logits[rows].float() / ctx.temperature, dim=-1)
            if of_entropy is None:
                gradient = scores.exp_().mul_(-of_logp[rows, None])
            else:
                weight = scores.add(entropy[rows, None]).mul_(of_entropy[rows, None]).add_(of_logp[rows, None])
                gradient = scores.exp_().mul_(weight.neg_())
            gradient.scatter_add_(-1, targets[rows, None], of_logp[rows, None])
            logits[rows] = gradient.div_(ctx.temperature)
        return logits, None, None, None


def _blocks(logits: Tensor) -> Iterator[slice]:
    """Slices of rows, each of BLOCK_BYTES or a single row."""
    size = max(1, BLOCK_BYTES // (4 * logits.shape[1]))
    return (slice(start, start + size) for start in range(0, len(logits), size))
