"""One episode of a served policy, shown as it happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ray import serve

from configs.training import TrainConfig
from deployments.client.handle import ServeGenerate
from deployments.storage import runs
from training.checks.failures import RolloutFailed
from training.environments.processes import isolation_of, opened
from training.evaluation.evaluate import apart
from training.evaluation.frames import Picture, save_gif
from training.evaluation.play import Show, Watched
from training.rendering.renderer import ChatRenderer
from training.rollouts.episode import run_episode
from training.rollouts.player import Player, PlaySettings
from training.rollouts.session import Session, open_session
from training.types import Episode, Task, Truncation

CUT_OFF: dict[Truncation, str] = {
    "turn_cap": "cut off by env.max_turns",
    "context_full": "cut off: the next prompt and answer exceed engine.max_model_len",
    "environment": "cut off by the environment's own limit",
}
WATCHING_DEADLINE_S = 86_400.0  # a person who watches may take a day


def watch(
    config: TrainConfig,
    model: Path,
    seed: int,
    show: Show,
    pause: Callable[[], object] | None = None,
    draw: Callable[[Picture], str] | None = None,
    gif: Path | None = None,
) -> Episode | None:
    """One held-out episode of a model through a replica, shown turn by turn as it happens; None when it was stopped by
    Ctrl-C. `draw` and `gif` as in `play_by_hand`. Raises RolloutFailed."""
    run = runs.create(config, "play")
    with open_session(apart(config, run), run, model) as session:
        show(f"replica of {model} is ready\n")
        settings = PlaySettings.for_evaluation(session.config)
        game = Watched(opened(settings.env, settings.env.kwargs), show, pause, draw)
        episode = _watched(session, settings, game, seed)
    if gif is not None and game.frames:
        save_gif(game.frames, gif)
    return episode


def _watched(session: Session, settings: PlaySettings, game: Watched, seed: int) -> Episode | None:
    # A pause, too, is a part of the environment's step.
    patient = settings.rollout.model_copy(update={"episode_deadline_s": WATCHING_DEADLINE_S})
    env = settings.env.model_copy(update={"step_timeout_s": WATCHING_DEADLINE_S}) if game.pause else settings.env
    player = Player(
        make_env=lambda: game,
        generate=ServeGenerate(serve.get_deployment_handle(session.config.serving.policy, session.app)),
        renderer=ChatRenderer.load(str(session.model)),
        settings=replace(settings, rollout=patient, env=env),
        blocking=isolation_of(settings.env) != "none",
    )
    # A loop of our own: that of asyncio.run only cancels on Ctrl-C, which a pause that waits for a key never notices.
    loop = asyncio.new_event_loop()
    try:
        episode = loop.run_until_complete(run_episode(player, Task(settings.env.name, seed), 0))
    except KeyboardInterrupt:
        game.show("\nstopped")
        return None
    finally:
        _close(loop)
    if not episode.ok:
        raise RolloutFailed(f"{settings.env.name} seed {seed}: {episode.error}")
    game.show(f"\nreturn {episode.episode_return:g} after {len(episode.turns)} turns, {_ending(episode)}")
    return episode


def _ending(episode: Episode) -> str:
    ended = episode.outcome or ("success" if episode.success else "no success")
    return ended if episode.truncation is None else f"{ended}, {CUT_OFF[episode.truncation]}"


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Ends what still listens for answers, then the loop."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()
