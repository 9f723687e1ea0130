"""The frozen policy of the KL term: spread over the ranks as the trained one is, and computing as it does."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from training.learner.loading import Loader, fill
from training.learner.microbatches import Beginnings
from training.learner.pixels import Pixels
from training.learner.policy import Policy
from training.learner.precision import autocast


class Reference:
    """Without gradients and optimiser. Its weights have the type that the policy's are rounded to when it computes, so
    that the KL divergence of an untrained policy is exactly 0, in bfloat16 as well."""

    def __init__(self, loader: Loader, compute: torch.dtype) -> None:
        """A collective. Under FSDP2 it is cut over the ranks by layer; otherwise, and under DeepSpeed, it is whole."""
        self._cut, self._compute = loader.cuts, compute
        loaded = loader.load(compute if self._cut else torch.float32)
        self.policy: Policy = loaded.policy.requires_grad_(False)
        if loaded.weights is not None:
            _cut(self.policy)
            fill(self.policy, loaded.weights)
        elif compute != torch.float32:
            _round(self.policy, compute)
        self.policy.requires_grad_(False)

    @torch.no_grad()
    def logp(
        self, token_ids: Tensor, mask: Tensor, beginnings: Beginnings | None = None, pixels: Pixels | None = None
    ) -> Tensor:
        """[B, T] log-probabilities of the chosen tokens; a collective where the reference is cut."""
        with nullcontext() if self._cut else autocast(self.policy, self._compute):
            logp: Tensor = self.policy(token_ids, mask, beginnings, pixels).logp
        return logp


def _cut(policy: Policy) -> None:
    from torch.distributed.fsdp import fully_shard

    for layer in policy.layers:
        fully_shard(layer)
    fully_shard(policy, reshard_after_forward=True)


def _round(policy: Policy, dtype: torch.dtype) -> None:
    """Those weights that an autocast rounds: of linear maps. A head that is tied gets weights of its own."""
    for module in policy.modules():
        if isinstance(module, nn.Linear):
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(parameter.to(dtype), requires_grad=False))
