"""The doctor at work: plays through replicas, scores with the learner, asks `doctor.diagnose` for the cause."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from configs.training import TrainConfig
from deployments.storage import runs
from envs.registry import evaluation_settings
from envs.registry import make as make_env
from training.checks.agreement import Scores, Tolerance
from training.cluster import placement
from training.evaluation.doctor import (
    Prompt,
    Report,
    Scorer,
    diagnose,
    template_drift,
)
from training.evaluation.evaluate import apart
from training.rollouts.conversation import Conversation
from training.rollouts.renderer import ChatRenderer
from training.rollouts.samples import episode_samples
from training.rollouts.session import Session, open_session
from training.types import Episode, Sample, prompts


def examine(config: TrainConfig, model: Path, turns: int, others: Sequence[Path] = ()) -> Report:
    """The doctor on a model folder: plays held-out situations through a replica, scores them with the learner."""
    run = runs.create(config, "doctor")
    with open_session(apart(config, run), run, model) as session:
        return examine_session(session, model, turns, others=others)


def examine_session(session: Session, model: Path, turns: int, version: int = 0, others: Sequence[Path] = ()) -> Report:
    """The doctor on running replicas that should hold the weights of `model`, published as `version`, and might hold
    those of one of the `others`."""
    first = session.config.evaluation.first_seed
    seeds = list(range(first, first + max(1, turns // 2)))
    episodes = ray.get(session.coordinator.evaluate.remote(seeds, version))
    return check_episodes(session.config, model, episodes, turns, version, others)


def check_episodes(
    config: TrainConfig,
    model: Path,
    episodes: Sequence[Episode],
    turns: int,
    version: int = 0,
    others: Sequence[Path] = (),
) -> Report:
    """The doctor on evaluation episodes that replicas played, which should hold the weights of `model` as `version`.

    Scores at most `turns` sequences with the learner. `others`: model folders that the replicas might hold instead.
    Template drift stands beside the other causes: sampler and learner see the same ids and may well agree on them.
    """
    samples = [sample for episode in episodes for sample in episode_samples(episode, 0.0, 0)][:turns]
    report = diagnose(
        [[logp for logp, chosen in zip(s.sampler_logp_T, s.mask_T, strict=True) if chosen] for s in samples],
        scorer(config, model, samples),
        config.evaluation.temperature,
        [sample.weight_version for sample in samples],
        version,
        Tolerance.between(placement.engine_dtype(config.serving.engine), config.model.dtype),
        {str(folder): scorer(config, folder, samples) for folder in others},
    )
    drift = template_drift(list(rendered_again(config, ChatRenderer.load(str(model)), episodes)))
    return replace(report, cause="; ".join(cause for cause in (report.cause, drift) if cause))


def scorer(config: TrainConfig, model: Path, samples: list[Sample]) -> Scorer:
    """The learner's log-probabilities of `samples` with the weights of a folder, which is loaded on first use."""
    loaded: list[Any] = []

    def score(temperature: float) -> Scores:
        from training.learner.learner import Learner, LearnerSettings

        if not loaded:
            loaded.append(Learner(LearnerSettings.of(config, model)))
        loaded[0].policy.temperature = temperature
        return loaded[0].score(samples)

    return score


def rendered_again(config: TrainConfig, renderer: ChatRenderer, episodes: Sequence[Episode]) -> Iterator[Prompt]:
    """Plays each episode again from its seed and its answers, and renders every prompt again.

    Where the history only grows, answers stay the ids that were sampled: only what the template adds is compared.
    """
    settings = evaluation_settings(config.env.name, config.env.kwargs, config.env.eval_kwargs)
    for episode in episodes:
        env = make_env(config.env.name, **settings)
        conversation = Conversation(config.env, env.spec, renderer)
        conversation.start(env.reset(episode.task.seed))
        for turn, prompt in zip(episode.turns, prompts(episode.turns), strict=True):
            before = prompt[: len(prompt) - len(turn.added_ids)]
            yield prompt, before + conversation.added
            result = env.step(turn.text)
            if result.terminated or result.truncated:
                break
            conversation.next(turn.completion_ids, turn.text, result.observation)
        env.close()
