"""What an episode is paid under a run's own weights of the reward's named parts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from configs.base import UserError
from configs.rewards import RewardConfig
from envs.base import EnvSpec, RewardPart, StepResult
from training.environments.calls import EnvCallFailed, finite_reward
from training.types import Turn

JUDGE = "judge"  # the reward's part that is a judge's score


class UnknownRewardPart(UserError):
    """A weight for a part that the environment's reward does not have; the message lists those that it has."""


@dataclass(frozen=True)
class Payment:
    """How steps are paid. `weights` has every part that the environment declares; None: the environment's own rewards,
    unchanged. `failure_return`: the least that a lost episode is paid, None where losing has no return of its own.

    A part `format` of weight 1 whose sum is 0 to 0.2 when lost, with failure_return 0, weighed by -2: a lost episode
    is paid down to -0.4, so Payment({"format": -2.0}, failure_return=-0.4).
    """

    weights: Mapping[str, float] | None
    failure_return: float | None
    judge_weight: float = 0.0  # of a score between 0 and 1

    @classmethod
    def of(cls, spec: EnvSpec, config: RewardConfig) -> Payment:
        """Raises UnknownRewardPart."""
        if config.judge is not None and JUDGE in spec.reward_parts:
            raise UnknownRewardPart(f"reward.judge: the reward of {spec.name} has a part {JUDGE!r} of its own")
        judge_weight = config.judge.weight if config.judge else 0.0
        least = spec.failure_return
        if least is not None:
            least += min(0.0, judge_weight)
        if not config.weights:
            return cls(None, least, judge_weight)
        _check_known(spec, config.weights)
        weights = {name: part.weight for name, part in spec.reward_parts.items()} | config.weights
        if least is None:
            return cls(weights, None, judge_weight)
        changes = (_worst(part, weights[name]) - _worst(part, part.weight) for name, part in spec.reward_parts.items())
        return cls(weights, least + sum(changes), judge_weight)

    def with_verdict(self, turns: Sequence[Turn], score: float) -> tuple[Turn, ...]:
        """The turns of an episode that a judge gave this score: its last one is paid for it."""
        *before, last = turns
        parts = {**last.reward_parts, JUDGE: score}
        return *before, replace(last, reward=last.reward + self.judge_weight * score, reward_parts=parts)

    def weighed(self, result: StepResult) -> StepResult:
        """The result with the weighted sum of its named parts as its reward; one that names none keeps its reward.
        Raises EnvCallFailed for a part that the environment did not declare, and for a sum that is not finite."""
        if self.weights is None or "rewards" not in result.info:
            return result
        parts: Mapping[str, float] = result.info["rewards"]
        undeclared = sorted(set(parts) - set(self.weights))
        if undeclared:
            raise EnvCallFailed(
                f"a step names the reward's part {undeclared[0]!r}, which EnvSpec.reward_parts does not declare "
                f"({', '.join(self.weights)}): reward.weights cannot weigh it"
            )
        try:
            reward = finite_reward(sum((self.weights[name] * value for name, value in parts.items()), 0.0))
        except ValueError as error:
            raise EnvCallFailed(f"the parts {dict(parts)} under reward.weights: {error}") from error
        return replace(result, reward=reward)


def _worst(part: RewardPart, weight: float) -> float:
    """The least that the part adds to the return of a lost episode."""
    return min(weight * part.lost_low, weight * part.lost_high)


def _check_known(spec: EnvSpec, weights: Mapping[str, float]) -> None:
    if not spec.reward_parts:
        raise UnknownRewardPart(
            f"reward.weights: the environment {spec.name} declares no parts of its reward (EnvSpec.reward_parts): "
            "leave reward.weights empty, or declare them in the environment"
        )
    unknown = sorted(set(weights) - set(spec.reward_parts))
    if unknown:
        raise UnknownRewardPart(
            f"reward.weights: the reward of {spec.name} has no part {unknown[0]!r}; its parts: "
            f"{', '.join(spec.reward_parts)}"
        )
