"""Every metric's name, unit and meaning in one place, and how those of the rollouts are computed. Pure.

Names are `area/quantity[_unit]`; each is a mean over the step unless its name ends in _max, _min or _total.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from training.types import EpisodeSummary, GroupSummary, Truncation

MEANING: dict[str, str] = {
    "rollout/return": "mean return of the step's episodes",
    "rollout/return_std": "standard deviation of the returns",
    "rollout/success": "share of episodes that the environment calls a success",
    "rollout/turns": "mean number of turns",
    "rollout/illegal": "share of turns whose action was malformed or illegal",
    "rollout/truncated": "share of episodes ended by a limit",
    "rollout/truncated_turn_cap": "share of episodes ended by env.max_turns",
    "rollout/truncated_context_full": "share of episodes whose chat outgrew engine.max_model_len",
    "rollout/truncated_environment": "share of episodes ended by the environment's own limit",
    "rollout/completion_tokens": "mean tokens of an answer",
    "rollout/tokens_total": "tokens that the policy chose, of all episodes of the step",
    "rollout/episode_s": "mean duration of an episode",
    "rollout/uniform_groups": "share of groups whose returns are all equal (algorithm.credit episode: no gradient)",
    "rollout/dropped_groups": "share of groups left out of the batch, since they give no gradient; the step is smaller",
    "rollout/replaced_groups_total": "groups without spread in whose place another was played (rollout.max_refills)",
    "rollout/retries_infra_total": "episodes played again after a failure of a replica or the network",
    "rollout/retries_env_total": "episodes played again after a failure of the environment",
    "rollout/nonfinite_answers_total": "answers refused for log-probabilities that were not finite",
    "rollout/judge_failed_total": "episodes played again because their judge gave no verdict (reward.judge)",
    "rollout/env_calls_hung_total": "environment calls given up after env.step_timeout_s",
    "rollout/env_processes_lost_total": "processes of environments that ended in the middle of a call",
    "rollout/env_close_failed_total": "environments whose close() raised",
    "rollout/opponent_illegal_total": "malformed or forbidden answers of the other player in self-play",
    "rollout/groups_replayed_total": "groups played again because their worker or its objects were lost",
    "rollout/alarms_total": "alarms of the run's own checks while the step was played (on_alarm: warn)",
    "rollout/lag_max": "learner version minus the oldest version in the batch",
    "rollout/wait_s": "time that the learner waited for the batch",
    "curriculum/stage": "furthest stage that the step's groups could be of, the first is 0 (curriculum)",
    "curriculum/NAME_success": "success of the groups that were played in a stage",
    "curriculum/NAME_groups_total": "groups that were played in a stage, replaced ones included",
    "reward/NAME": "mean over the episodes of a part of the reward that the environment names",
    "train/loss": "policy loss",
    "train/grad_norm": "gradient norm before clipping, of the batch's last update",
    "train/skipped_updates": "updates of the step without effect, because their gradient was not finite",
    "train/alarms_total": "alarms of the run's own checks in the step's batch and updates (on_alarm: warn)",
    "train/logp_difference": "mean |learner - sampler| log-probability before the first update of the batch, nats",
    "train/logp_difference_max": "largest |learner - sampler| log-probability before the first update, nats",
    "train/clip_fraction": "share of tokens whose ratio lies outside of the clip's bounds",
    "train/bounded_tokens_total": "tokens whose log-ratio (policy or KL) was cut at 20 nats, over the step's updates",
    "train/kl": "estimated KL divergence from the start policy, nats per token",
    "train/lr": "learning rate",
    "train/entropy": "mean entropy of the policy at its chosen tokens, nats",
    "train/update_s": "forward, backward and optimiser step",
    "train/publish_s": "writing the new weight version",
    "train/step_s": "the whole step",
    "train/episodes": "episodes of the step, those of groups that were left out as well",
    "train/tokens": "chosen tokens that the step trained on",
    "eval/success": "success on held-out situations",
    "eval/return": "mean return on held-out situations",
}


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def rollout_metrics(groups: Sequence[GroupSummary]) -> dict[str, float]:
    """What the groups of one step say about the policy, and what went wrong while they were played."""
    episodes = [episode for group in groups for episode in group.episodes]
    uniform = mean([float(group.uniform) for group in groups])
    return episode_metrics(episodes) | {"rollout/uniform_groups": uniform} | failure_metrics(groups)


def episode_metrics(episodes: Sequence[EpisodeSummary]) -> dict[str, float]:
    returns = [episode.episode_return for episode in episodes]
    turns = sum(episode.turns for episode in episodes)
    tokens = sum(episode.completion_tokens for episode in episodes)
    center = mean(returns)
    metrics = {
        "rollout/return": center,
        "rollout/return_std": mean([(value - center) ** 2 for value in returns]) ** 0.5,
        "rollout/success": mean([float(episode.success) for episode in episodes]),
        "rollout/turns": mean([float(episode.turns) for episode in episodes]),
        "rollout/illegal": sum(episode.illegal_turns for episode in episodes) / max(turns, 1),
        "rollout/truncated": mean([float(episode.end == "truncated") for episode in episodes]),
        "rollout/completion_tokens": tokens / max(turns, 1),
        "rollout/tokens_total": float(tokens),
        "rollout/episode_s": mean([episode.episode_s for episode in episodes]),
    }
    for limit in get_args(Truncation):
        metrics[f"rollout/truncated_{limit}"] = mean([float(e.truncation == limit) for e in episodes])
    for name in sorted({name for episode in episodes for name in episode.reward_parts}):
        metrics[f"reward/{name}"] = mean([episode.reward_parts.get(name, 0.0) for episode in episodes])
    return metrics


COUNTED = {  # metric -> the counters that it adds up, by the beginning of their names
    "rollout/retries_infra_total": "retries_infra_failed",
    "rollout/retries_env_total": "retries_env_failed",
    "rollout/nonfinite_answers_total": "answers_nonfinite_logprobs",
    "rollout/judge_failed_total": "judge_failed_",
    "rollout/env_calls_hung_total": "env_calls_hung",
    "rollout/env_processes_lost_total": "env_processes_lost",
    "rollout/env_close_failed_total": "env_close_failed",
    "rollout/opponent_illegal_total": "opponent_illegal",
    "rollout/groups_replayed_total": "groups_replayed_",
    "rollout/alarms_total": "alarms_",
}


def failure_metrics(groups: Sequence[GroupSummary]) -> dict[str, float]:
    return {
        metric: float(sum(n for group in groups for reason, n in group.counts.items() if reason.startswith(prefix)))
        for metric, prefix in COUNTED.items()
    }
