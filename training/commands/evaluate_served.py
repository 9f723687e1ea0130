"""`rayward eval --env`: a policy that is served, in closed loop with an environment here."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from configs.base import ConfigError
from configs.training import TrainConfig
from training.commands.options import console, read_key

if TYPE_CHECKING:
    from training.evaluation.closed_loop import ClosedLoop
    from training.evaluation.served import Server


# Settings of a run that count here, too: how the environment is made, and what is played.
READ = ("env.kwargs.", "env.eval_kwargs.", "evaluation.episodes.", "evaluation.first_seed.")


def server(
    env: str, url: str, grpc: str, policy: str, key_file: Path | None, timeout_s: float, execute_steps: int
) -> Server:
    """Where the options say that the policy is. Raises ConfigError."""
    from training.evaluation.served import Server

    if not env:
        raise ConfigError("--url and --grpc name a policy that is served; name what it plays with --env arm or cave")
    if bool(url) == bool(grpc):
        raise ConfigError(
            f"--env {env} is played by a policy that is served: give --url http://HOST:8000, or for chunks over gRPC "
            "--grpc HOST:50051, and not both"
        )
    if url and not url.startswith(("http://", "https://")):
        raise ConfigError(f"--url {url} must begin with http:// or https://")
    if "://" in grpc:
        raise ConfigError(f"--grpc {grpc} must be HOST:PORT, without {grpc.partition('://')[0]}://")
    return Server(
        protocol="url" if url else "grpc",
        address=url or grpc,
        policy=policy or None,
        key=read_key(key_file),
        timeout_s=timeout_s,
        execute_steps=execute_steps,
    )


def evaluate(
    env: str, where: Server, episodes: int, overrides: Sequence[str], parallel: int, json: Path | None
) -> None:
    """Plays the held-out situations, and shows what came of it. Exits with 1 when the server was lost in all."""
    from deployments.storage import atomic
    from envs import registry
    from training.commands.tables import closed_loop_table
    from training.evaluation.closed_loop import play_all, summarize
    from training.evaluation.served import episodes_of

    _check_read(overrides)
    more = [*overrides, *([f"evaluation.episodes={episodes}"] if episodes else [])]
    config = TrainConfig.parse({"env": {"name": env}}, more, source="--set")
    settings = registry.evaluation_settings(env, config.env.kwargs, config.env.eval_kwargs)
    first, count = config.evaluation.first_seed, config.evaluation.episodes
    result = summarize(play_all(episodes_of(env, where, settings), range(first, first + count), parallel))
    title = f"{env} ({_listed(settings)}): {count} situations from seed {first}, {where.address}"
    console.print(closed_loop_table(result, where.policy or "policy", title))
    if json is not None:
        atomic.write_text(json, json_format.dumps(_written(result, env, settings, where), indent=2))
    if result.server_lost:
        reasons = "; ".join(result.errors)
        print(f"rayward: the server was lost in {result.server_lost} of {count} episodes: {reasons}", file=sys.stderr)
    if result.success is None:
        raise typer.Exit(1)


def _check_read(overrides: Sequence[str]) -> None:
    """Raises ConfigError for a setting that this evaluation does not read: it would seem to have an effect."""
    for override in overrides:
        key = override.partition("=")[0].strip()
        if not f"{key}.".startswith(READ):
            raise ConfigError(
                f"--set {key} has no effect on a policy that is served; what has: {', '.join(key[:-1] for key in READ)}"
            )


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _written(result: ClosedLoop, env: str, settings: Mapping[str, Any], where: Server) -> dict[str, Any]:
    """What the JSON file holds; never the key."""
    played = {"env": env, "settings": dict(settings), "address": where.address, "policy": where.policy}
    return {**played, "execute_steps": where.execute_steps, **result.to_json()}
