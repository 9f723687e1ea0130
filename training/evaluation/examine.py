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
from training.checks.agreement import Scores, Surprise, Tolerance
from training.checks.alarms import Alarm
from training.cluster import placement
from training.environments.processes import opened
from training.evaluation.doctor import (
    Prompt,
    Report,
    diagnose,
    template_drift,
)
from training.evaluation.evaluate import apart
from training.rendering.conversation import Conversation
from training.rendering.renderer import ChatRenderer
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
    own = Scoring(config, model, samples)
    report = diagnose(
        [[logp for logp, chosen in zip(s.sampler_logp_T, s.mask_T, strict=True) if chosen] for s in samples],
        own,
        config.evaluation.temperature,
        [sample.weight_version for sample in samples],
        version,
        Tolerance.between(placement.engine_dtype(config.serving.engine), config.model.dtype),
        {str(folder): Scoring(config, folder, samples) for folder in others},
    )
    surprise = own.surprise(config.evaluation.temperature)
    drift = template_drift(list(rendered_again(config, ChatRenderer.load(str(model)), episodes)))
    causes = (report.cause, drift, "" if report.cause or surprise is None else str(surprise))
    return replace(report, cause="; ".join(cause for cause in causes if cause))


class Scoring:
    """The learner's log-probabilities of `samples` with the weights of a folder, which is loaded on first use. A
    Scorer."""

    def __init__(self, config: TrainConfig, model: Path, samples: list[Sample]) -> None:
        self._config, self._model, self._samples = config, model, samples
        self._loaded: Any = None

    def __call__(self, temperature: float) -> Scores:
        return self._scored(temperature)[0]

    def surprise(self, temperature: float) -> Alarm | None:
        """Whether these samples are what one would draw. At temperature 0 nothing is drawn."""
        return Surprise.of(*self._scored(temperature)).alarm() if temperature else None

    def _scored(self, temperature: float) -> tuple[Scores, Scores]:
        from training.learner.learner import Learner
        from training.learner.settings import LearnerSettings

        if self._loaded is None:
            self._loaded = Learner(LearnerSettings.of(self._config, self._model))
        self._loaded.policy.temperature = temperature
        scored: tuple[Scores, Scores] = self._loaded.score_with_entropy(self._samples)
        return scored


def rendered_again(config: TrainConfig, renderer: ChatRenderer, episodes: Sequence[Episode]) -> Iterator[Prompt]:
    """Plays each episode again from its seed and its answers, and renders every prompt again.

    Where the history only grows, answers stay the ids that were sampled: only what the template adds is compared.
    """
    settings = evaluation_settings(config.env.name, config.env.kwargs, config.env.eval_kwargs)
    for episode in episodes:
        env = opened(config.env, settings)
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
