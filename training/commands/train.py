"""`rayward train | warmstart | sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from configs.base import ConfigError
from configs.models import SMOLLM2, TINY
from configs.sweep import SweepConfig
from configs.training import TrainConfig
from training.cluster.accelerators import RAY_NAMES
from training.commands.choosing.scripts import find as find_script
from training.commands.choosing.shortcuts import Shortcuts
from training.commands.options import (
    ConfigOption,
    SetOption,
    check_memory,
    chosen,
    console,
    peak_memory,
    with_checked_environment,
)

if TYPE_CHECKING:
    from deployments.storage.runs import RunFolder


def train(
    config: Annotated[str, typer.Option("--config", help="YAML file, or the name of a shipped one")] = "",
    overrides: SetOption = [],  # noqa: B006 - typer copies it
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print configuration, placement and memory, start nothing")
    ] = False,
    resume: Annotated[str, typer.Option("--resume", help="folder or id of a run to continue")] = "",
    env: Annotated[
        str, typer.Option("--env", help="environment; without --config its shipped one; `vf-NAME` is NAME, too")
    ] = "",
    model: Annotated[str, typer.Option("--model", help="model.source: a folder, or OWNER/MODEL on the hub")] = "",
    steps: Annotated[int, typer.Option(min=0, help="training steps; 0: as configured")] = 0,
    gpu_count: Annotated[
        int, typer.Option(min=0, help="GPUs in all: 1 is shared by learner and replica; 0: as configured")
    ] = 0,
    gpu_type: Annotated[str, typer.Option(help=f"of learner and replicas: {', '.join(RAY_NAMES)}")] = "",
    script: Annotated[str, typer.Option(help="one of the configuration's `scripts`, instead of GRPO")] = "",
) -> None:
    """GRPO through served replicas; evaluates at the end."""
    if config and resume:
        raise ConfigError("--resume takes the run's own configuration: leave --config out, change with --set")
    if resume and (env or model or script):
        raise ConfigError("a run is resumed with its own environment, model and loop: leave these options out")
    if not (config or resume or env):
        raise ConfigError("name a configuration with --config, an environment with --env, or a run with --resume")
    settings, run = chosen(config, resume, overrides, 0, Shortcuts(env, model, steps, gpu_count, gpu_type))
    custom = find_script(settings, script) if script else None
    if dry_run:
        from training.cluster import memory, placement
        from training.commands import tables

        console.print(settings.to_yaml(), markup=False, highlight=False)
        console.print(tables.placement(placement.placement(settings)))
        console.print(f"memory, all on one machine: {memory.of_training(settings)}", markup=False, soft_wrap=True)
        return
    if custom is not None:
        custom(settings)
        return
    check_memory(settings)
    with peak_memory():
        _train(settings, run)


def _train(config: TrainConfig, resumed: RunFolder | None) -> None:
    """In a run folder that is ours alone: a resume waits for the end of the run that it continues."""
    from deployments.storage import runs
    from deployments.storage.ownership import owned_by_us
    from training.run.caches import caches_of
    from training.tracking.monitors import check_tracking

    check_tracking(config)
    run = resumed or runs.create(config)
    with owned_by_us(run.path), caches_of(config, run.path):
        _train_in(run, config, resumed is not None)


def _train_in(run: RunFolder, config: TrainConfig, resumed: bool) -> None:
    from training.commands.progress import bars, on_step
    from training.commands.tables import table
    from training.evaluation.evaluate import evaluate
    from training.learner import checkpoint
    from training.rollouts.session import open_session
    from training.run.driver import train as run_grpo
    from training.run.resume import check_changes, keep_changes
    from training.run.start import start_model

    done = max(checkpoint.steps(run.checkpoints), default=0)
    if resumed:
        if done >= config.steps:
            raise ConfigError(f"{run.path} has done all its {done} steps: name more with --set steps=N")
        check_changes(run, config)
    console.print(f"run folder {run.path}" + (f", resumed after step {done}" if done else ""), soft_wrap=True)
    model = run.start_model if resumed and run.start_model.is_dir() else start_model(config, run)
    with open_session(config, run, model) as session:
        keep_changes(run, config)  # it has started with them
        with bars(console) as progress:
            run_grpo(session, on_step(progress, "GRPO", config.steps, done))
        console.print(table([evaluate(session, "trained", session.store.latest() or 0)], "held-out situations"))


def warmstart(
    config: ConfigOption,
    output: Annotated[Path, typer.Option(help="folder of the model")],
    overrides: SetOption = [],  # noqa: B006
) -> None:
    """Supervised fine-tuning on scripted demonstrations."""
    import tempfile

    from deployments.storage.models import model_folder_error
    from training.imitation import smollm2, tiny
    from training.imitation.sft import warmstart as run_warmstart

    settings = with_checked_environment(TrainConfig.load(config, overrides))
    with tempfile.TemporaryDirectory() as scratch:
        if settings.model.source == TINY:
            model = tiny.build(settings.model.tiny, settings.env, settings.seed, scratch)
        elif settings.model.source == SMOLLM2:
            model = smollm2.made(settings.storage_path)
        else:
            problem = model_folder_error(settings.model.source)
            if problem:
                raise ConfigError(problem)
            model = Path(settings.model.source)
        loss = run_warmstart(settings, model, output)
    console.print(f"loss {loss:.4f}; model in {output}")


def sweep(
    config: Annotated[str, typer.Option("--config", help="YAML file, or the name of a shipped one")] = "",
    overrides: SetOption = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print space and placement, start nothing")] = False,
    resume: Annotated[str, typer.Option("--resume", help="folder or id of a sweep to continue")] = "",
) -> None:
    """Ray Tune over whole runs, ASHA on the held-out evaluation; shows the best trial and how to run it again."""
    from training.cluster import memory

    settings, base, folder = _chosen_sweep(config, overrides, resume)
    estimate = memory.of_sweep(base, settings.concurrency)
    if dry_run:
        from training.cluster import placement
        from training.commands import tables

        console.print(settings.to_yaml(), markup=False)
        console.print(f"{settings.trial_count} trials of {base.steps} steps, {settings.concurrency} at once; of each:")
        console.print(tables.placement(placement.placement(base)))
        console.print(f"memory, all on one machine: {estimate}", markup=False, soft_wrap=True)
        return
    from training.sweep.tuner import run_sweep

    check_memory(base, estimate)
    with peak_memory():

        def say(shown: object) -> None:
            console.print(shown, markup=False, soft_wrap=isinstance(shown, str))

        run_sweep(settings, base, say, folder)


def _chosen_sweep(config: str, overrides: list[str], resume: str) -> tuple[SweepConfig, TrainConfig, RunFolder | None]:
    """The sweep, what its trials start from, and its folder if it is to be continued."""
    if resume:
        from training.sweep.resume import sweep_to_resume

        settings, base, folder = sweep_to_resume(resume, config, overrides)
        return settings, with_checked_environment(base), folder
    if not config:
        raise ConfigError("name a configuration with --config, or a sweep with --resume")
    settings = SweepConfig.load(config, overrides)
    return settings, with_checked_environment(settings.resolve()), None
