"""`rayward eval | compare | doctor`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from configs.base import ConfigError
from configs.training import TrainConfig
from envs import registry
from training.commands.choosing.choice import configuration_for
from training.commands.choosing.shortcuts import Shortcuts
from training.commands.options import (
    ConfigOption,
    EpisodesOption,
    HistoriesOption,
    KeyFileOption,
    ModelOption,
    ModelsOption,
    RunOption,
    SetOption,
    chosen,
    console,
    find_model,
    find_models,
    peak_memory,
)

ONLY_SERVED = ("arm", "cave")  # no model of ours is trained on them

if TYPE_CHECKING:
    from training.evaluation.result import Evaluation


def evaluate_models(
    config: ConfigOption = "",
    run: RunOption = "",
    model: ModelsOption = [],  # noqa: B006
    env: Annotated[str, typer.Option("--env", help="environment, in place of --config; `vf-NAME` is NAME, too")] = "",
    history: HistoriesOption = [],  # noqa: B006
    episodes: Annotated[
        int, typer.Option("--episodes", "--num-examples", min=0, help="held-out situations; 0: as configured")
    ] = 0,
    overrides: SetOption = [],  # noqa: B006
    url: Annotated[
        str, typer.Option("--url", help="with --env arm or cave: http://HOST:PORT of a policy that is served")
    ] = "",
    grpc: Annotated[str, typer.Option("--grpc", help="with --env arm: HOST:PORT of a policy that serves chunks")] = "",
    policy: Annotated[str, typer.Option("--policy", help="of a server: which of its policies")] = "",
    key_file: KeyFileOption = None,
    parallel: Annotated[int, typer.Option(min=1, help="of a server: episodes at a time")] = 4,
    execute_steps: Annotated[
        int, typer.Option("--execute-steps", min=1, help="with --grpc: actions of a chunk that are executed")
    ] = 8,
    timeout_s: Annotated[
        float, typer.Option("--timeout-s", min=0.001, help="of a server: seconds for an answer, retries included")
    ] = 60.0,
    json: Annotated[Path | None, typer.Option("--json", help="of a server: file for the result")] = None,
) -> None:
    """Success, mean return, outcomes and illegal actions on held-out situations, with 95 % intervals.

    Of models (--config, --run or --env, with --model); or of a policy that is served, through its own protocol (--env
    with --url or --grpc).
    """
    env = env and registry.named(env)
    if url or grpc or (env in ONLY_SERVED and not model):
        if config or run or model or history:
            raise ConfigError("--url and --grpc name a policy: leave out --config, --run, --model and --history")
        from training.commands import evaluate_served

        where = evaluate_served.server(env, url, grpc, policy, key_file, timeout_s, execute_steps)
        evaluate_served.evaluate(env, where, episodes, overrides, parallel, json)
        return
    of_a_server = {
        "--policy": policy, "--key-file": key_file, "--parallel": parallel != 4, "--execute-steps": execute_steps != 8,
        "--timeout-s": timeout_s != 60.0, "--json": json,
    }  # fmt: skip
    given = [option for option, value in of_a_server.items() if value]
    if given:
        raise ConfigError(f"{given[0]} has an effect on a policy that is served alone: name one with --url or --grpc")
    if env and run:
        raise ConfigError("--run has an environment of its own: leave --env out, or name a model with --model")
    if env and not config:
        settings, folder = configuration_for(env, model, overrides, episodes), None
    else:
        settings, folder = chosen(config, run, overrides, episodes, Shortcuts(env=env))
    results = _evaluate(settings, find_models(model, folder), history)
    if len(results) > 1:
        _show_differences(results)


def compare(
    model: ModelsOption,
    config: ConfigOption = "",
    run: RunOption = "",
    history: HistoriesOption = [],  # noqa: B006
    episodes: EpisodesOption = 0,
    overrides: SetOption = [],  # noqa: B006
) -> None:
    """Several models of one architecture in the same situations; paired difference to the first, with interval."""
    settings, folder = chosen(config, run, overrides, episodes)
    models = find_models(model, folder)
    if len(models) < 2:
        raise ConfigError("compare needs two models: give --model twice, or --run and --model")
    _show_differences(_evaluate(settings, models, history))


def _evaluate(config: TrainConfig, models: list[Path], histories: list[str]) -> list[Evaluation]:
    from deployments.storage import runs
    from deployments.storage.models import labels
    from training.commands.tables import table
    from training.evaluation.evaluate import check_histories, evaluate_all

    check_histories(config, histories)
    run, named = runs.create(config, "eval"), labels(models)
    for name, path in named.items():
        console.print(f"{name}: {path}", soft_wrap=True, markup=False)
    with peak_memory():
        results = evaluate_all(config, run, named, histories)
    console.print(table(results, f"{config.env.name}: {config.evaluation.episodes} held-out situations"))
    console.print(f"results in {run.evaluations}", soft_wrap=True)
    return results


def _show_differences(results: Sequence[Evaluation]) -> None:
    from training.commands.tables import paired_table

    console.print(paired_table(results))


def doctor(
    config: ConfigOption = "",
    run: RunOption = "",
    model: ModelOption = "",
    turns: Annotated[int, typer.Option(min=1, help="answers to compare")] = 64,
    certify: Annotated[
        bool, typer.Option("--certify", help="put known faults into short runs instead; each must be noticed")
    ] = False,
    healthy: Annotated[int, typer.Option(min=0, help="with --certify: runs without a fault")] = 100,
    overrides: SetOption = [],  # noqa: B006
) -> None:
    """Samples through a replica, scores with the learner, and names the cause when they differ."""
    if certify:
        _certify(healthy)
        return
    settings, folder = chosen(config, run, overrides)
    path = find_model(model, folder)
    from training.commands import tables
    from training.evaluation.examine import examine

    mistaken = [folder.start_model, folder.path / "models" / "init"] if folder else []
    report = examine(settings, path, turns, [m for m in mistaken if m != path and (m / "config.json").is_file()])
    console.print(tables.differences(report))
    fit = report.fit
    console.print(f"max {fit.largest:.2e}  mean {fit.mean:.2e}  bias {fit.bias:+.2e}  ({report.tolerance.dtypes})")
    if not report.healthy:
        print(f"rayward: {report.cause}", file=sys.stderr)
        raise typer.Exit(1)
    console.print("healthy: the learner scores what the replica samples, on prompts that it renders alike")


def _certify(healthy_runs: int) -> None:
    """Shows each row when it is there, then the whole table. Exits with 1 when a fault escapes or a run without one is
    alarmed."""
    import tempfile

    from training.certify.certify import certify as certificate_of
    from training.certify.report import Row, told

    def say(row: Row) -> None:
        console.print(row.line(), soft_wrap=True, markup=False, highlight=False)

    with tempfile.TemporaryDirectory(prefix="rayward-certify-") as storage, peak_memory():
        certificate = certificate_of(Path(storage), healthy_runs, say)
    console.print(certificate.table())
    console.print(certificate.summary())
    if not certificate.passed:
        for line in [*(f"escaped: {name}" for name in certificate.escaped), *told(certificate)]:
            print(f"rayward: {line}", file=sys.stderr)
        raise typer.Exit(1)
