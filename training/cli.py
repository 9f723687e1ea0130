"""The commands: `rayward train | warmstart | eval | compare | sweep | play | doctor | serve | envs`.

Libraries are imported inside a command, so that the base installation can say which extra is missing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from configs.base import ConfigError
from configs.serving import ServeConfig
from configs.sweep import SweepConfig
from configs.training import TrainConfig
from deployments.errors import PolicyError
from training.cluster.quiet import quiet_libraries

if TYPE_CHECKING:
    from deployments.storage.runs import RunFolder
    from training.evaluation.result import Evaluation

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console()
ConfigOption = Annotated[str, typer.Option("--config", help="YAML file, or the name of a shipped one")]
RunOption = Annotated[str, typer.Option("--run", help="folder or id of a run")]
ModelsOption = Annotated[list[str], typer.Option("--model", help="model folder, or a run's folder or id; repeatable")]
ModelOption = Annotated[str, typer.Option("--model", help="model folder, or a run's folder or id")]
HISTORIES = "none, full, scratchpad, optimal_scratchpad; repeatable; default: as configured"
HistoriesOption = Annotated[list[str], typer.Option("--history", help=HISTORIES)]
EpisodesOption = Annotated[int, typer.Option("--episodes", min=0, help="held-out situations; 0: as configured")]
SetOption = Annotated[list[str], typer.Option("--set", help="a.b=value, repeatable")]


@app.command()
def train(
    config: Annotated[str, typer.Option("--config", help="YAML file, or the name of a shipped one")] = "",
    overrides: SetOption = [],  # noqa: B006 - typer copies it
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print configuration and placement, start nothing")
    ] = False,
    resume: Annotated[str, typer.Option("--resume", help="folder or id of a run to go on with")] = "",
) -> None:
    """GRPO through served replicas; evaluates at the end."""
    if config and resume:
        raise ConfigError("--resume goes on with the run's own configuration: leave --config out, change with --set")
    if not config and not resume:
        raise ConfigError("name a configuration with --config, or a run with --resume")
    settings, run = chosen(config, resume, overrides)
    if dry_run:
        from training import tables
        from training.cluster import placement

        console.print(settings.to_yaml(), markup=False, highlight=False)
        console.print(tables.placement(placement.placement(settings)))
        return
    _train(settings, run)


def _train(config: TrainConfig, resumed: RunFolder | None) -> None:
    from deployments.storage import runs
    from training.evaluate import table
    from training.evaluation.evaluate import evaluate
    from training.learner.learner import checkpoint
    from training.quickstart import bars
    from training.rollouts.session import session
    from training.run.driver import train as run_grpo
    from training.run.start import start_model

    if resumed is not None:
        done = checkpoint.steps(resumed.checkpoints)
        if done and done[-1] >= config.steps:
            raise ConfigError(f"{resumed.path} has done all its {done[-1]} steps: name more with --set steps=N")
    run = resumed or runs.create(config)
    console.print(f"run folder {run.path}", soft_wrap=True)
    model = run.start_model if resumed and run.start_model.is_dir() else start_model(config, run)
    with session(config, run, model) as live:
        with bars(console) as progress:
            bar = progress.add_task("GRPO", total=config.steps)

            def on_step(step: int, metrics: dict[str, float]) -> None:
                success = metrics["rollout/success"]
                progress.update(bar, completed=step + 1, description=f"GRPO, success in rollouts {success:.2f}")

            run_grpo(live, on_step)
        console.print(table([evaluate(live, "trained", live.store.latest() or 0)], "held-out situations"))


@app.command()
def sweep(
    config: ConfigOption,
    overrides: SetOption = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print space and placement, start nothing")] = False,
) -> None:
    """Ray Tune over whole runs, ASHA on the held-out evaluation; shows the best trial and how to run it again."""
    settings = SweepConfig.load(config, overrides)
    base = settings.resolve()
    if dry_run:
        from training import tables
        from training.cluster import placement

        console.print(settings.to_yaml(), markup=False)
        console.print(f"{settings.trial_count} trials of {base.steps} steps, {settings.concurrency} at once; of each:")
        console.print(tables.placement(placement.placement(base)))
        return
    from training.sweep.tuner import run_sweep

    run_sweep(settings, base, lambda shown: console.print(shown, markup=False, soft_wrap=isinstance(shown, str)))


@app.command()
def warmstart(
    config: ConfigOption,
    output: Annotated[Path, typer.Option(help="folder of the model")],
    overrides: SetOption = [],  # noqa: B006
) -> None:
    """Supervised fine-tuning on scripted demonstrations."""
    import tempfile

    from training.cluster.application import model_folder_error
    from training.imitation import tiny
    from training.imitation.sft import warmstart as run_warmstart

    settings = TrainConfig.load(config, overrides)
    with tempfile.TemporaryDirectory() as scratch:
        if settings.model.source == "tiny":
            model = tiny.build(settings.model.tiny, settings.env, settings.seed, scratch)
        else:
            problem = model_folder_error(settings.model.source)
            if problem:
                raise ConfigError(problem)
            model = Path(settings.model.source)
        loss = run_warmstart(settings, model, output)
    console.print(f"loss {loss:.4f}; model in {output}")


@app.command("eval")
def evaluate_models(
    config: ConfigOption = "",
    run: RunOption = "",
    model: ModelsOption = [],  # noqa: B006
    history: HistoriesOption = [],  # noqa: B006
    episodes: EpisodesOption = 0,
    overrides: SetOption = [],  # noqa: B006
) -> None:
    """Success, mean return, outcomes and illegal actions on held-out situations, with 95 % intervals."""
    settings, folder = chosen(config, run, overrides, episodes)
    results = _evaluate(settings, _models(model, folder), history)
    if len(results) > 1:
        _show_differences(results)


@app.command()
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
    models = _models(model, folder)
    if len(models) < 2:
        raise ConfigError("compare needs two models: give --model twice, or --run and --model")
    _show_differences(_evaluate(settings, models, history))


def chosen(config: str, run: str, overrides: Sequence[str], episodes: int = 0) -> tuple[TrainConfig, RunFolder | None]:
    """The configuration of --config, or that of --run with its folder. Raises ConfigError."""
    more = [*overrides, *([f"evaluation.episodes={episodes}"] if episodes else [])]
    if run:
        from deployments.storage import runs

        folder = runs.find(run)
        settings = TrainConfig.load(config, more) if config else folder.load_config(more)
        return settings, folder
    if config:
        return TrainConfig.load(config, more), None
    raise ConfigError("name a configuration with --config, or a run with --run")


def _models(given: Sequence[str], run: RunFolder | None) -> list[Path]:
    """The run's newest model first, then those that were named. Raises ConfigError."""
    from deployments.storage import models

    found = [models.newest(run)] if run is not None else []
    found += [models.find(name) for name in given]
    if not found:
        raise ConfigError("name a model folder with --model, or a run with --run")
    models.check_same_architecture(found)
    return found


def _model(given: str, run: RunFolder | None) -> Path:
    """The model that was named, else the run's newest. Raises ConfigError."""
    from deployments.storage import models

    return models.find(given) if given else _models([], run)[0]


def _evaluate(config: TrainConfig, models: list[Path], histories: list[str]) -> list[Evaluation]:
    from deployments.storage import runs
    from deployments.storage.models import labels
    from training.evaluation.evaluate import check_histories, evaluate_all
    from training.tables import table

    check_histories(config, histories)
    run, named = runs.create(config, "eval"), labels(models)
    for name, path in named.items():
        console.print(f"{name}: {path}", soft_wrap=True, markup=False)
    results = evaluate_all(config, run, named, histories)
    console.print(table(results, f"{config.env.name}: {config.evaluation.episodes} held-out situations"))
    console.print(f"results in {run.evaluations}", soft_wrap=True)
    return results


def _show_differences(results: Sequence[Evaluation]) -> None:
    from training.tables import paired_table

    console.print(paired_table(results))


@app.command()
def serve(config: ConfigOption, overrides: SetOption = []) -> None:  # noqa: B006
    """Starts the Serve application and blocks until Ctrl-C."""
    import threading

    from training.cluster import application, ray_session

    settings = ServeConfig.load(config, overrides)
    with ray_session.ray_session(), application.application(settings):
        host, port = settings.http.host, settings.http.port
        console.print(f"ready: http://{host}:{port}  policies: {', '.join(p.name for p in settings.policies)}")
        console.print("routes: /health /metrics /v1/models /v1/completions /v1/chat/completions /tokenize /detokenize")
        threading.Event().wait()


@app.command()
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
    path = _model(model, folder)
    from training.evaluation.watch import watch

    console.print(f"starting a replica of {path}", soft_wrap=True, markup=False)
    watch(settings, path, seed, show, enter(input) if pause else None)


@app.command()
def doctor(
    config: ConfigOption = "",
    run: RunOption = "",
    model: ModelOption = "",
    turns: Annotated[int, typer.Option(min=1, help="answers to compare")] = 64,
    overrides: SetOption = [],  # noqa: B006
) -> None:
    """Samples through a replica, scores with the learner, and names the cause when they differ."""
    settings, folder = chosen(config, run, overrides)
    path = _model(model, folder)
    from training import tables
    from training.evaluation.examine import examine

    mistaken = [folder.start_model, folder.path / "models" / "init"] if folder else []
    report = examine(settings, path, turns, [m for m in mistaken if m != path and (m / "config.json").is_file()])
    console.print(tables.differences(report))
    console.print(f"max {report.max_difference:.2e}  mean {report.mean_difference:.2e}")
    if not report.healthy:
        print(f"rayward: {report.cause}", file=sys.stderr)
        raise typer.Exit(1)
    console.print("healthy: the learner scores what the replica samples, on prompts that it renders alike")


@app.command("envs")
def list_environments() -> None:
    """Lists the environments."""
    from envs import registry

    shown = Table("name", "what", "turns", "best success")
    for name in registry.names():
        spec = registry.spec(name)
        shown.add_row(name, spec.one_line, str(spec.horizon), f"{spec.best_success:g}")
    console.print(shown)


def known_errors() -> tuple[type[BaseException], ...]:
    """Errors that a message explains; those of modules that are not loaded cannot have been raised."""
    found: list[type[BaseException]] = [ConfigError, PolicyError, ValueError, OSError]
    for module, name in (
        ("training.cluster.ray_session", "ClusterError"),
        ("training.grpo", "TrainingFailed"),
        ("training.tune", "SweepFailed"),
        ("training.rollouts.episode", "RolloutFailed"),
        ("training.learner.checkpoint", "CheckpointError"),
        ("deployments.weights.store", "WeightsError"),
    ):
        if module in sys.modules:
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


def run(arguments: list[str] | None = None) -> int:
    """Exit code of a command: 0, 1 for a known error (its message on stderr), 130 for Ctrl-C."""
    quiet_libraries()
    try:
        app(arguments, standalone_mode=False)
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:
        print(f"{error.name} is not installed: pip install 'rayward[cpu,train]'", file=sys.stderr)
        return 1
    except typer.Exit as done:
        return done.exit_code
    except Exception as error:
        if hasattr(error, "show"):  # a usage error of the command line
            error.show()
            return 2
        if not isinstance(error, known_errors()):
            raise
        print(f"rayward: {error}", file=sys.stderr)
        return 1
    return 0


def main() -> None:
    sys.exit(run())


def run_train_module() -> None:
    """`python -m training.grpo` is `rayward train`."""
    sys.exit(run(["train", *sys.argv[1:]]))
