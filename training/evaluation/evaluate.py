"""Evaluation of policies on the same held-out situations, with 95 % intervals; and the paired comparison of two."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import ray

from configs.base import ConfigError
from configs.training import TrainConfig
from deployments.storage import atomic, runs
from deployments.storage.tensors import tensors_of
from envs import registry
from envs.history import make_history
from training.environments.processes import opened
from training.evaluation.result import Evaluation, summarize
from training.rollouts.session import Session, open_session


def evaluate(session: Session, name: str, min_weight_version: int = 0, history: str = "") -> Evaluation:
    """Plays the configured evaluation on the running replicas, with weights of `min_weight_version` or newer and the
    configured history strategy or another one."""
    settings = session.config.evaluation
    seeds = list(range(settings.first_seed, settings.first_seed + settings.episodes))
    episodes = ray.get(session.coordinator.evaluate.remote(seeds, min_weight_version, history))
    result = summarize(name, session.config.env.name, history or session.config.env.history, episodes)
    session.run.evaluations.mkdir(parents=True, exist_ok=True)
    file = re.sub(r"[^\w.-]+", "_", f"{name} {history}".strip()) + ".json"
    atomic.write_text(session.run.evaluations / file, json.dumps(result.to_json(), indent=2))
    return result


def evaluate_all(
    config: TrainConfig, run: runs.RunFolder, models: Mapping[str, Path], histories: Sequence[str] = ()
) -> list[Evaluation]:
    """Every model with every history strategy (default: the configured one), through one replica, in the same
    situations and with the same request seeds. The models share an architecture; keys of `models` name the rows."""
    histories = list(dict.fromkeys(histories)) or [config.env.history]
    check_histories(config, histories)
    first, *_ = models.values()
    results: list[Evaluation] = []
    with open_session(apart(config, run), run, first) as session:
        for index, (name, folder) in enumerate(models.items()):
            version = publish_folder(session, folder) if index else 0
            results += [evaluate(session, name, version, history) for history in histories]
    return results


def check_histories(config: TrainConfig, histories: Sequence[str]) -> None:
    """Raises HistoryUnsupported for a strategy that the environment cannot be played with: before anything starts."""
    settings = registry.evaluation_settings(config.env.name, config.env.kwargs, config.env.eval_kwargs)
    environment = opened(config.env, settings)
    try:
        for history in histories:
            make_history(history, environment.spec)
    finally:
        environment.close()


def apart(config: TrainConfig, run: runs.RunFolder) -> TrainConfig:
    """The configuration with replicas and a weight store of its own: what is evaluated is never published into a
    training run's store, and a version of that run never takes the place of the model. Raises ConfigError."""
    if config.serving.connect is not None:
        raise ConfigError(
            f"serving.connect is {config.serving.connect!r}: a model folder is evaluated on replicas of its own; "
            "add --set serving.connect=null"
        )
    if config.weights.root is None:
        return config
    return TrainConfig.parse(config.dump(), [f"weights.root={config.weights.root.rstrip('/')}/{run.path.name}"])


def publish_folder(session: Session, folder: Path) -> int:
    """Makes a model folder of the same architecture the newest version of the running replicas; returns its number.
    Raises FileNotFoundError for a folder without weights."""
    version = (session.store.latest() or 0) + 1
    session.store.publish(version, tensors_of(folder))
    return version
