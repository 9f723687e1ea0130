"""Did an update do what its batch asks for? Pure: numbers that the learner gathered, over all ranks, in; alarms out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from training.checks.agreement import Fit, Tolerance, agreement_alarm
from training.checks.alarms import Alarm

UNIT_SLACK = 0.02  # a share in bfloat16 is rounded by 0.4 %
WRONG_SHARE = 1e-5  # of a slope; float32 rounds one to the other side by a hundredth of this


@dataclass(frozen=True)
class UpdateRecord:
    """What one batch's updates looked like from inside, over all ranks."""

    fit: Fit | None  # sampler - learner before the first update, where both have the same weights; None: nowhere
    tokens: float  # that had a gradient, per update
    expected_tokens: int
    unit_gradients: tuple[float, ...]  # of each update: what every share of the loss adds to, 1 when each counts once
    wrong_ratios: float  # tokens whose first ratio was not exactly 1 though it is taken against the learner itself
    wrong_slope: float  # share of the policy loss's slope that pushes a token against its advantage
    wrong_kl_slope: float  # share of the KL term's slope that pushes a token away from the reference
    reference_moved: bool
    optimizer_steps: int  # as the optimiser counts them
    updates: int  # as the learner counts them


def update_alarms(record: UpdateRecord, tolerance: Tolerance) -> Iterator[Alarm]:
    if record.fit is not None and (alarm := agreement_alarm(record.fit, tolerance)) is not None:
        yield alarm
    if round(record.tokens) != record.expected_tokens:
        yield Alarm(
            "trained tokens",
            f"{record.tokens:.0f} tokens had a gradient, and the policy chose {record.expected_tokens} in the groups "
            "that are trained on: a mask leaves some out, or a rank counts its own only",
        )
    for unit in record.unit_gradients:
        if not abs(unit - 1) <= UNIT_SLACK:
            yield Alarm(
                "unit gradient",
                f"a gradient that adds up to 1 over all micro-batches and ranks came out as {unit:.4g}: the others are "
                "wrong by the same factor (reduced twice or not at all, or divided by the numbers of one rank)",
            )
            break
    if record.wrong_ratios:
        yield Alarm(
            "first ratio",
            f"{record.wrong_ratios:.0f} tokens have a ratio other than 1 before the first update of the batch: the "
            "difference to the sampler is in the ratio and in the off-policy weight, and counts twice",
        )
    if record.wrong_slope > WRONG_SHARE:
        yield _slope("loss slope", record.wrong_slope, "policy loss pushes tokens against their advantages")
    if record.wrong_kl_slope > WRONG_SHARE:
        yield _slope("kl slope", record.wrong_kl_slope, "KL term pushes tokens away from the reference")
    if record.reference_moved:
        yield Alarm(
            "reference",
            "the weights of the reference model have changed since it was loaded: the KL term follows the policy",
        )
    if record.optimizer_steps != record.updates:
        yield Alarm(
            "optimizer state",
            f"the optimiser's state has seen {record.optimizer_steps} updates, the learner has taken {record.updates}: "
            "its moments are those of another run, or were lost when it was resumed",
        )


def _slope(check: str, share: float, what: str) -> Alarm:
    return Alarm(check, f"{100 * share:.3g} % of the {what}: a sign is wrong, or a mask is shifted")
