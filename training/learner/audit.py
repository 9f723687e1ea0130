"""What the checks of an update look at, gathered while it runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from training.algorithms.losses import LossInputs
from training.algorithms.objective import Slopes
from training.checks.agreement import Fit
from training.checks.updates import UpdateRecord

UNIT = 2.0**-20  # of the loss: too little to change the gradient's norm


class Audit:
    """Sums over the tokens of a batch before its first update; `sums` and `largest` are to be reduced over ranks."""

    def __init__(self) -> None:
        self.sums = torch.zeros(10, dtype=torch.float64)
        self.largest = 0.0

    def add(self, x: LossInputs, slopes: Slopes, sampler_logp: Tensor, fresh: Tensor, against_learner: bool) -> None:
        """`fresh` [B]: sampled with the weights that the learner has now; `against_learner`: whether the ratio is taken
        against the learner itself."""
        with torch.no_grad():
            chosen = (x.mask > 0) & (fresh[:, None] > 0)
            difference = torch.where(chosen, sampler_logp - x.learner_logp, 0.0).double()
            self.largest = max(self.largest, float(difference.abs().max()))
            wrong_ratios = (x.counted & (x.log_ratio != 0)).sum() if against_learner else torch.zeros(())
            parts = [chosen.sum(), difference.sum(), difference.abs().sum(), (difference**2).sum(), wrong_ratios]
            self.sums += torch.stack([part.double().cpu() for part in (*parts, *slopes)])

    @staticmethod
    def record(sums: list[float], largest: float, **rest: Any) -> UpdateRecord:
        """`sums`, `largest`: reduced over the ranks; `rest`: the record's other fields."""
        tokens, total, absolute, squared, wrong_ratios, wrong_policy, policy, wrong_kl, kl, noise = sums
        return UpdateRecord(
            fit=Fit.from_sums(tokens, total, absolute, squared, largest) if tokens else None,
            wrong_ratios=wrong_ratios,
            wrong_slope=wrong_policy / policy if policy else 0.0,
            wrong_kl_slope=max(0.0, wrong_kl - noise) / kl if kl else 0.0,
            **rest,
        )


def mark_of(module: torch.nn.Module | None) -> float:
    """A number that changes when any weight of this rank does."""
    if module is None:
        return 0.0
    local = [p.to_local() if hasattr(p, "to_local") else p for p in module.parameters()]
    norms = [torch.linalg.vector_norm(each.detach()).double() for each in local if each.numel()]
    return float(torch.stack(norms).sum())
