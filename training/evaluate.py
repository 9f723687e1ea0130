"""Evaluation of policies on the same held-out situations, with 95 % intervals; and the paired comparison of two."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray

from configs.base import ConfigError
from configs.training import TrainConfig
from envs import registry
from envs.history import make_history
from training import runs, statistics
from training.doctor import Report, diagnose
from training.grpo import Session, session
from training.rollout import CONTEXT_FULL
from training.samples import episode_samples
from training.statistics import Estimate
from training.tables import table as table
from training.types import Episode


@dataclass(frozen=True)
class Evaluation:
    """What one policy did with one history strategy. `success_S` (0/1) and `returns_S` stand in the seeds' order."""

    name: str
    env: str
    history: str
    success: Estimate
    mean_return: Estimate
    illegal_rate: float
    outcomes: dict[str, int]  # win, draw, loss where it applies
    turns: float
    context_full: int  # episodes that ended because the chat outgrew engine.max_model_len
    success_S: tuple[float, ...]
    returns_S: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def summarize(name: str, env: str, history: str, episodes: Sequence[Episode]) -> Evaluation:
    success = [float(episode.success) for episode in episodes]
    returns = [episode.episode_return for episode in episodes]
    turns = [turn for episode in episodes for turn in episode.turns]
    outcomes = {kind: sum(e.outcome == kind for e in episodes) for kind in ("win", "draw", "loss")}
    return Evaluation(
        name=name,
        env=env,
        history=history,
        success=statistics.proportion(int(sum(success)), len(success)),
        mean_return=statistics.mean(returns),
        illegal_rate=sum(turn.illegal for turn in turns) / max(len(turns), 1),
        outcomes=outcomes if any(outcomes.values()) else {},
        turns=len(turns) / len(episodes),
        context_full=sum(episode.error.startswith(CONTEXT_FULL) for episode in episodes),
        success_S=tuple(success),
        returns_S=tuple(returns),
    )


def evaluate(live: Session, name: str, min_weight_version: int = 0, history: str = "") -> Evaluation:
    """Plays the configured evaluation on the live replicas, with weights of `min_weight_version` or newer and the
    configured history strategy or another one."""
    settings = live.config.evaluation
    seeds = list(range(settings.first_seed, settings.first_seed + settings.episodes))
    episodes = ray.get(live.coordinator.evaluate.remote(seeds, min_weight_version, history))
    result = summarize(name, live.config.env.name, history or live.config.env.history, episodes)
    live.run.evaluations.mkdir(parents=True, exist_ok=True)
    file = re.sub(r"[^\w.-]+", "_", f"{name} {history}".strip()) + ".json"
    (live.run.evaluations / file).write_text(json.dumps(result.to_json(), indent=2))
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
    with session(apart(config, run), run, first) as live:
        for index, (name, folder) in enumerate(models.items()):
            version = publish_folder(live, folder) if index else 0
            results += [evaluate(live, name, version, history) for history in histories]
    return results


def check_histories(config: TrainConfig, histories: Sequence[str]) -> None:
    """Raises HistoryUnsupported for a strategy that the environment cannot be played with: before anything starts."""
    spec = registry.spec(config.env.name, **(config.env.kwargs | config.env.eval_kwargs))
    for history in histories:
        make_history(history, spec)


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


def publish_folder(live: Session, folder: Path) -> int:
    """Makes a model folder of the same architecture the newest version of the live replicas; returns its number."""
    from safetensors import safe_open

    version = (live.store.latest() or 0) + 1
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no *.safetensors: it is no model folder")

    def tensors() -> Any:
        for file in files:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - no mapping
                    yield name, opened.get_tensor(name)

    live.store.publish(version, tensors())
    return version


def watch(config: TrainConfig, model: Path, seed: int) -> Episode:
    """One held-out episode of a model through a replica."""
    run = runs.create(config, "play")
    with session(apart(config, run), run, model) as live:
        episode: Episode = ray.get(live.coordinator.evaluate.remote([seed], 0))[0]
        return episode


def examine(config: TrainConfig, model: Path, turns: int) -> Report:
    """The doctor on a model folder: plays held-out situations through a replica, scores them with the learner."""
    run = runs.create(config, "doctor")
    with session(apart(config, run), run, model) as live:
        return examine_live(live, model, turns)


def examine_live(live: Session, model: Path, turns: int, version: int = 0) -> Report:
    """The doctor on live replicas that should hold the weights of `model`, published as `version`."""
    from training.learner import Learner

    config = live.config
    first = config.evaluation.first_seed
    seeds = list(range(first, first + max(1, turns // 2)))
    episodes = ray.get(live.coordinator.evaluate.remote(seeds, version))
    samples = [sample for episode in episodes for sample in episode_samples(episode, 0.0, 0)][:turns]
    temperature = config.evaluation.temperature

    def score(at: float) -> list[list[float]]:
        learner.policy.temperature = at
        return learner.score(samples)

    learner = Learner(
        config.model, config.optimizer, config.algorithm, config.learner, str(model), temperature=temperature
    )
    sampler = [[logp for logp, m in zip(s.sampler_logp_T, s.mask_T, strict=True) if m] for s in samples]
    return diagnose(sampler, score, temperature, [s.weight_version for s in samples], version)
