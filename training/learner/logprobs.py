"""Log-probabilities of chosen tokens, in chunks: the full [tokens, vocabulary] matrix is never held in float32."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def chosen_logprobs(
    hidden: Tensor,
    head: Callable[[Tensor], Tensor],
    token_ids: Tensor,
    mask: Tensor,
    temperature: float,
    chunk: int,
    entropy_gradient: bool = True,
) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy at every chosen token.

    hidden [B, T, D]: position t holds what predicts token t + 1; token_ids, mask [B, T]. Returns two [B, T] float32
    tensors (0 where nothing was chosen), under the distribution softmax(logits / temperature). Only the positions
    before a chosen token go through the head; logits of a chunk are computed again in the backward pass. The entropy
    has a gradient only with `entropy_gradient`, which costs further [chunk, vocabulary] matrices in that pass.
    """
    where = mask[:, 1:].bool()
    states, targets = hidden[:, :-1][where], token_ids[:, 1:][where]
    parts = [
        checkpoint(
            _chunk, head, states[i : i + chunk], targets[i : i + chunk], temperature, entropy_gradient,
            use_reentrant=False,
        )
        for i in range(0, max(len(targets), 1), chunk)
    ]  # fmt: skip
    logp = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)
    entropy = torch.zeros_like(logp)
    sequences, positions = torch.nonzero(where, as_tuple=True)
    at = (sequences, positions + 1)
    logp = logp.index_put(at, torch.cat([part[0] for part in parts]))
    entropy = entropy.index_put(at, torch.cat([part[1] for part in parts]))
    return logp, entropy


def _chunk(
    head: Callable[[Tensor], Tensor], states: Tensor, targets: Tensor, temperature: float, entropy_gradient: bool
) -> tuple[Tensor, Tensor]:
    scores = torch.log_softmax(head(states).float() / temperature, dim=-1)
    logp = scores.gather(-1, targets[:, None])[:, 0]
    # Last, so that the recomputation in the backward pass stops before it where it has no gradient.
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        return logp, -(scores.exp() * scores).sum(-1)
