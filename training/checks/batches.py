"""Is a batch what its groups say? Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from training.checks.alarms import Alarm


def sizes_alarm(sizes: Iterable[int], group_size: int) -> Alarm | None:
    """`sizes`: how many episodes each group of a step has."""
    wrong = [size for size in sizes if size != group_size]
    if not wrong:
        return None
    return Alarm(
        "whole groups",
        f"{len(wrong)} groups of the step have another size than rollout.group_size ({group_size}), the first "
        f"{wrong[0]}: siblings were lost, and advantages compare with those that are left",
    )


def advantages_alarm(given: Sequence[float], expected: Sequence[float]) -> Alarm | None:
    """The advantage of each training sequence: `given`, and computed once more from the return that travelled with its
    tokens."""
    for index, (value, right) in enumerate(zip(given, expected, strict=True)):
        if not abs(value - right) <= 1e-5 * max(1.0, abs(right)):
            return Alarm(
                "advantages",
                f"advantage {index} of the batch is {value:g}, where what was paid, compared among the siblings, makes "
                f"it {right:g}: it got that of another episode or group",
            )
    return None


def step_alarm(batch_step: int, learner_step: int) -> Alarm | None:
    """Both counted from 0: the step that a batch was played for, and the batches that the learner has had."""
    if batch_step == learner_step:
        return None
    return Alarm(
        "step count",
        f"the batch is that of step {batch_step}, the learner has done {learner_step}: after a resume one of them went "
        "on from another checkpoint than the other",
    )
