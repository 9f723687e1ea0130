"""Evaluation of policies on the same held-out situations, with 95 % intervals; and the paired comparison of two."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray

from configs.training import TrainConfig
from training import runs, statistics
from training.doctor import Report, diagnose
from training.grpo import Session, session
from training.samples import episode_samples
from training.statistics import Estimate
from training.types import Episode


@dataclass(frozen=True)
class Evaluation:
    """What one policy did. `success_S` is one 0/1 a seed, in the order of the seeds."""

    name: str
    env: str
    history: str
    success: Estimate
    mean_return: Estimate
    illegal_rate: float
    outcomes: dict[str, int]  # win, draw, loss where it applies
    turns: float
    success_S: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def summarize(name: str, env: str, history: str, episodes: Sequence[Episode]) -> Evaluation:
    success = [float(episode.success) for episode in episodes]
    turns = [turn for episode in episodes for turn in episode.turns]
    outcomes = {kind: sum(e.outcome == kind for e in episodes) for kind in ("win", "draw", "loss")}
    return Evaluation(
        name=name,
        env=env,
        history=history,
        success=statistics.proportion(int(sum(success)), len(success)),
        mean_return=statistics.mean([episode.episode_return for episode in episodes]),
        illegal_rate=sum(turn.illegal for turn in turns) / max(len(turns), 1),
        outcomes=outcomes if any(outcomes.values()) else {},
        turns=len(turns) / len(episodes),
        success_S=tuple(success),
    )


def evaluate(live: Session, name: str, min_weight_version: int = 0) -> Evaluation:
    """Plays the configured evaluation on the live replicas, with weights of `min_weight_version` or newer."""
    settings = live.config.evaluation
    seeds = list(range(settings.first_seed, settings.first_seed + settings.episodes))
    episodes = ray.get(live.coordinator.evaluate.remote(seeds, min_weight_version))
    result = summarize(name, live.config.env.name, live.config.env.history, episodes)
    live.run.evaluations.mkdir(parents=True, exist_ok=True)
    (live.run.evaluations / f"{name.replace(' ', '_')}.json").write_text(json.dumps(result.to_json(), indent=2))
    return result


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


def table(evaluations: Sequence[Evaluation], title: str) -> Any:
    """A rich table of evaluations; the first row is what the others are compared with."""
    from rich.table import Table

    shown = Table(title=title)
    columns = ["policy", "success [95 %]", "mean return [95 %]", "win/draw/loss", "illegal", "turns", "vs first [95 %]"]
    for column in columns:
        shown.add_column(column, justify="left" if column == "policy" else "right")
    for evaluation in evaluations:
        outcomes = evaluation.outcomes
        gain = statistics.paired_difference(evaluations[0].success_S, evaluation.success_S)
        shown.add_row(
            evaluation.name,
            str(evaluation.success),
            str(evaluation.mean_return),
            "/".join(str(outcomes[kind]) for kind in ("win", "draw", "loss")) if outcomes else "-",
            f"{evaluation.illegal_rate:.3f}",
            f"{evaluation.turns:.1f}",
            "" if evaluation is evaluations[0] else f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]",
        )
    return shown


def watch(config: TrainConfig, model: Path, seed: int) -> Episode:
    """One held-out episode of a model through a replica."""
    with session(config, runs.create(config, "play"), model) as live:
        episode: Episode = ray.get(live.coordinator.evaluate.remote([seed], 0))[0]
        return episode


def examine(config: TrainConfig, model: Path, turns: int) -> Report:
    """The doctor on a model folder: plays held-out situations through a replica, scores them with the learner."""
    run = runs.create(config, "doctor")
    with session(config, run, model) as live:
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
