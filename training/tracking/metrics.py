"""Every metric's name, unit and meaning in one place, and how those of the rollouts are computed. Pure.

Names are `area/quantity[_unit]`; each is a mean over the step unless its name ends in _max, _min or _total.
"""

from __future__ import annotations

from collections.abc import Sequence

from training.types import Episode, Group

MEANING: dict[str, str] = {
    "rollout/return": "mean return of the step's episodes",
    "rollout/return_std": "standard deviation of the returns",
    "rollout/success": "share of episodes that the environment calls a success",
    "rollout/turns": "mean number of turns",
    "rollout/illegal": "share of turns whose action was malformed or illegal",
    "rollout/truncated": "share of episodes ended by a limit",
    "rollout/completion_tokens": "mean tokens of an answer",
    "rollout/tokens_total": "tokens that the policy chose, of all episodes of the step",
    "rollout/episode_s": "mean duration of an episode",
    "rollout/uniform_groups": "share of groups without spread (no gradient)",
    "rollout/lag_max": "learner version minus the oldest version in the batch",
    "rollout/wait_s": "time that the learner waited for the batch",
    "train/loss": "policy loss",
    "train/grad_norm": "gradient norm before clipping, of the batch's last update",
    "train/skipped_updates": "updates of the step without effect, because their gradient was not finite",
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
    "train/samples": "training sequences of the step",
    "train/tokens": "chosen tokens of the step",
    "eval/success": "success on held-out situations",
    "eval/return": "mean return on held-out situations",
}


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """What the groups of one step say about the policy."""
    episodes = [episode for group in groups for episode in group.episodes]
    return episode_metrics(episodes) | {
        "rollout/uniform_groups": mean([float(len(set(group.returns_G)) == 1) for group in groups])
    }


def episode_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    turns = [turn for episode in episodes for turn in episode.turns]
    returns = [episode.episode_return for episode in episodes]
    center = mean(returns)
    return {
        "rollout/return": center,
        "rollout/return_std": mean([(value - center) ** 2 for value in returns]) ** 0.5,
        "rollout/success": mean([float(episode.success) for episode in episodes]),
        "rollout/turns": mean([float(len(episode.turns)) for episode in episodes]),
        "rollout/illegal": mean([float(turn.illegal) for turn in turns]),
        "rollout/truncated": mean([float(episode.end == "truncated") for episode in episodes]),
        "rollout/completion_tokens": mean([float(len(turn.completion_ids)) for turn in turns]),
        "rollout/tokens_total": float(sum(len(turn.completion_ids) for turn in turns)),
        "rollout/episode_s": mean([episode.episode_s for episode in episodes]),
    }
