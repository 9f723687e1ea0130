"""Evaluation of policies on the same held-out situations, with 95 % intervals; and the paired comparison of two."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray import serve

from configs.base import ConfigError
from configs.training import TrainConfig
from deployments.client.handle import ServeGenerate
from deployments.storage import runs
from envs import registry
from envs.history import make_history
from training.cluster.application import APPLICATION
from training.doctor import Report, check_episodes
from training.play import Show, Watched
from training.rollouts.episode import CONTEXT_FULL, Player, PlaySettings, run_episode
from training.rollouts.group import RolloutFailed
from training.rollouts.renderer import ChatRenderer
from training.rollouts.session import Session, session
from training.tracking import intervals
from training.tracking.intervals import Estimate
from training.types import Episode, Task

WATCHING_DEADLINE_S = 86_400.0  # a person who watches may take a day


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
        success=intervals.proportion(int(sum(success)), len(success)),
        mean_return=intervals.mean(returns),
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


def watch(
    config: TrainConfig, model: Path, seed: int, show: Show, pause: Callable[[], object] | None = None
) -> Episode | None:
    """One held-out episode of a model through a replica, shown turn by turn as it happens; None when it was stopped by
    Ctrl-C. Raises RolloutFailed."""
    run = runs.create(config, "play")
    with session(apart(config, run), run, model) as live:
        show(f"replica of {model} is ready\n")
        return _watched(live, seed, show, pause)


def _watched(live: Session, seed: int, show: Show, pause: Callable[[], object] | None) -> Episode | None:
    settings = PlaySettings.for_evaluation(live.config)
    patient = settings.rollout.model_copy(update={"episode_deadline_s": WATCHING_DEADLINE_S})
    player = Player(
        make_env=lambda: Watched(registry.make(settings.env.name, **settings.env.kwargs), show, pause),
        generate=ServeGenerate(serve.get_deployment_handle(live.config.serving.policy, APPLICATION)),
        renderer=ChatRenderer.load(str(live.model)),
        settings=replace(settings, rollout=patient),
    )
    # A loop of our own: that of asyncio.run only cancels on Ctrl-C, which a pause that waits for a key never notices.
    loop = asyncio.new_event_loop()
    try:
        episode = loop.run_until_complete(run_episode(player, Task(settings.env.name, seed), 0))
    except KeyboardInterrupt:
        show("\nstopped")
        return None
    finally:
        _close(loop)
    if not episode.ok:
        raise RolloutFailed(f"{settings.env.name} seed {seed}: {episode.error}")
    show(f"\nreturn {episode.episode_return:g} after {len(episode.turns)} turns, {_ending(episode)}")
    return episode


def _ending(episode: Episode) -> str:
    ended = episode.outcome or ("success" if episode.success else "no success")
    return ended if episode.end == "completed" else f"{ended}, {episode.error or 'cut off by a limit on the turns'}"


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Ends what still listens for answers, then the loop."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()


def examine(config: TrainConfig, model: Path, turns: int, others: Sequence[Path] = ()) -> Report:
    """The doctor on a model folder: plays held-out situations through a replica, scores them with the learner."""
    run = runs.create(config, "doctor")
    with session(apart(config, run), run, model) as live:
        return examine_live(live, model, turns, others=others)


def examine_live(live: Session, model: Path, turns: int, version: int = 0, others: Sequence[Path] = ()) -> Report:
    """The doctor on live replicas that should hold the weights of `model`, published as `version`, and might hold those
    of one of the `others`."""
    first = live.config.evaluation.first_seed
    seeds = list(range(first, first + max(1, turns // 2)))
    episodes = ray.get(live.coordinator.evaluate.remote(seeds, version))
    return check_episodes(live.config, model, episodes, turns, version, others)
