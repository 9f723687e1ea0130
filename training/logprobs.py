"""Log-probabilities of chosen tokens, in chunks: the full [tokens, vocabulary] matrix is never held in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# What a banned token's logit becomes. Finite, since 0 * -inf in the entropy and its gradient is nan; its probability is
# exactly 0 in float32 all the same, as with the sampler's -inf.
BANNED_LOGIT = -1e30


@dataclass(frozen=True)
class Scoring:
    """How logits become the distribution that the sampler drew from."""

    temperature: float = 1.0
    banned_ids: Sequence[int] = ()
    chunk_tokens: int = 4096  # tokens whose logits are held at once
    entropy_gradient: bool = True  # False: entropy is a metric only, and is not computed again in the backward pass


def chunks_needed(mask: Tensor, chunk_tokens: int) -> int:
    """Calls of the head for this mask [B, T]; at least one, so that every parameter takes part in the gradient."""
    return max(1, -(-int(mask[:, 1:].sum()) // chunk_tokens))


def chosen_logprobs(
    hidden: Tensor,
    head: Callable[[Tensor], Tensor],
    token_ids: Tensor,
    mask: Tensor,
    scoring: Scoring,
    chunks: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy at every chosen token.

    hidden [B, T, D]: position t holds what predicts token t + 1; token_ids, mask [B, T]. Returns two [B, T] float32
    tensors (0 where nothing was chosen), under softmax(logits / temperature) without the banned tokens. Only the
    positions before a chosen token go through the head; logits of a chunk are computed again in the backward pass.

    `chunks` is how often the head is called (at least `chunks_needed`): ranks that gather the head's weights with
    every call (ZeRO-3) must call it equally often.
    """
    where = mask[:, 1:].bool()
    rows, columns = torch.nonzero(where, as_tuple=True)
    states, targets = hidden[rows, columns], token_ids[rows, columns + 1]
    size = scoring.chunk_tokens
    needed = max(1, -(-len(targets) // size))
    parts = [
        checkpoint(
            _chunk,
            head,
            states[i * size : (i + 1) * size],
            targets[i * size : (i + 1) * size],
            scoring,
            use_reentrant=False,
            preserve_rng_state=False,  # nothing random inside
        )
        for i in range(max(needed, chunks or 0))
    ]
    zeros = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)
    at = (rows, columns + 1)
    logp = zeros.index_put(at, torch.cat([part[0] for part in parts]))
    entropy = zeros.index_put(at, torch.cat([part[1] for part in parts]))
    return logp, entropy


def _chunk(head: Callable[[Tensor], Tensor], states: Tensor, targets: Tensor, scoring: Scoring) -> tuple[Tensor, Tensor]:
    logits = head(states).float()
    if scoring.temperature != 1.0:
        logits = logits / scoring.temperature
    if scoring.banned_ids:
        logits = logits.index_fill(-1, torch.tensor(scoring.banned_ids, device=logits.device), BANNED_LOGIT)
    scores = torch.log_softmax(logits, dim=-1)
    logp = scores.gather(-1, targets[:, None])[:, 0]
    # Last on purpose: the recomputation in the backward pass stops before what no gradient needs.
    with torch.set_grad_enabled(scoring.entropy_gradient and torch.is_grad_enabled()):
        entropy = -(scores.exp() * scores).sum(-1)
    return logp, entropy
