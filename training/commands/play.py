"""`rayward play`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from configs.base import ConfigError
from configs.training import TrainConfig
from envs.base import Env
from training.commands.options import (
    ConfigOption,
    ModelOption,
    SetOption,
    chosen,
    console,
    find_model,
)


def play(
    env: Annotated[str, typer.Option("--env", help="environment to play by hand")] = "",
    config: ConfigOption = "",
    run: Annotated[str, typer.Option("--run", help="folder or id of a run whose policy is watched")] = "",
    model: ModelOption = "",
    seed: Annotated[int, typer.Option(help="situation")] = 0,
    pause: Annotated[bool, typer.Option("--pause", help="wait for Enter between the turns")] = False,
    gif: Annotated[str, typer.Option("--gif", help="file that the pictures of the turns are written to")] = "",
    overrides: SetOption = [],  # noqa: B006
) -> None:
    """An episode turn by turn: by hand (--env NAME), or a policy's (--run RUN, or --model FOLDER --config YAML)."""
    from envs import registry
    from training.environments.processes import opened
    from training.evaluation.frames import half_blocks
    from training.evaluation.play import enter, play_by_hand

    def show(text: str) -> None:
        console.print(Text.from_ansi(text), highlight=False, soft_wrap=True)

    draw = half_blocks if console.is_terminal else None
    film = Path(gif) if gif else None

    if env and (run or model or config):
        raise ConfigError("--env plays by hand, --run or --model with --config watches a policy: give one of them")
    if env:
        if pause:
            raise ConfigError("--pause waits between the turns of a policy that is watched; by hand, each turn waits")
        given = TrainConfig.parse({"env": {"name": registry.named(env)}}, overrides, source="--set").env
        game = opened(given, given.kwargs)
        if film is not None:
            check_pictures(game)
        play_by_hand(game, seed, input, show, draw, film)
        return
    if not run and not config:
        raise ConfigError("name an environment with --env, a run with --run, or --model with --config")
    settings, folder = chosen(config, run, overrides)
    path = find_model(model, folder)
    from training.evaluation.watch import watch

    console.print(f"starting a replica of {path}", soft_wrap=True, markup=False)
    if film is not None:
        tried = opened(settings.env, settings.env.kwargs)
        check_pictures(tried)
        tried.close()
    watch(settings, path, seed, show, enter(input) if pause else None, draw, film)


def check_pictures(game: Env) -> None:
    """Raises ConfigError for an environment that has none, which is closed then."""
    game.reset(0)
    if game.render() is None:
        game.close()
        raise ConfigError(f"--gif: {game.spec.name} has no pictures; leave --gif out")
