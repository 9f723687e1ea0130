"""`rayward play | envs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from configs.base import ConfigError
from training.commands.options import (
    ConfigOption,
    ModelOption,
    SetOption,
    chosen,
    console,
    find_model,
)

if TYPE_CHECKING:
    pass


def play(
    env: Annotated[str, typer.Option("--env", help="environment to play by hand")] = "",
    config: ConfigOption = "",
    run: Annotated[str, typer.Option("--run", help="folder or id of a run whose policy is watched")] = "",
    model: ModelOption = "",
    seed: Annotated[int, typer.Option(help="situation")] = 0,
    pause: Annotated[bool, typer.Option("--pause", help="wait for Enter between the turns")] = False,
    overrides: SetOption = [],  # noqa: B006
) -> None:
    """An episode turn by turn: by hand (--env NAME), or a policy's (--run RUN, or --model FOLDER --config YAML)."""
    from training.evaluation.play import enter, play_by_hand

    def show(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    if env and (run or model or config):
        raise ConfigError("--env plays by hand, --run or --model with --config watches a policy: give one of them")
    if env:
        from envs import registry

        play_by_hand(registry.make(env), seed, input, show)
        return
    if not run and not config:
        raise ConfigError("name an environment with --env, a run with --run, or --model with --config")
    settings, folder = chosen(config, run, overrides)
    path = find_model(model, folder)
    from training.evaluation.watch import watch

    console.print(f"starting a replica of {path}", soft_wrap=True, markup=False)
    watch(settings, path, seed, show, enter(input) if pause else None)


def list_environments() -> None:
    """Lists the environments."""
    from envs import registry

    shown = Table("name", "what", "turns", "best success")
    for name in registry.names():
        try:
            spec = registry.spec(name)
        except Exception as error:  # an installed package's environment must not hide the others
            shown.add_row(name, escape(f"unusable: {error}"), "", "")
        else:
            shown.add_row(name, escape(spec.one_line), str(spec.horizon), f"{spec.best_success:g}")
    console.print(shown)
    console.print(f"Other libraries' environments: {', '.join(registry.prefixes())} (docs/environments.md)")
