"""The commands: `rayward train | warmstart | eval | compare | play | doctor | serve | sweep | envs`.

Libraries are imported inside a command, so that the base installation can say which extra is missing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from configs.base import ConfigError
from configs.serving import ServeConfig
from configs.training import TrainConfig
from deployments.errors import PolicyError

if TYPE_CHECKING:
    from training.evaluate import Evaluation
    from training.grpo import Session
    from training.runs import RunFolder

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console()
ConfigOption = Annotated[str, typer.Option("--config", help="YAML file, or the name of a shipped one")]
RunOption = Annotated[str, typer.Option("--run", help="folder or id of a run")]
SetOption = Annotated[list[str], typer.Option("--set", help="a.b=value, may be repeated")]
ROUTES = "/ /health /metrics /v1/models /v1/completions /v1/chat/completions /tokenize /detokenize"
# Modules of the extras: a missing one is answered by what to install; any other missing module is a defect.
OF_EXTRAS = {
    "accelerate", "datasets", "deepspeed", "fastapi", "gymnasium", "matplotlib", "peft", "prometheus_client", "pyarrow",
    "ray", "safetensors", "torch", "transformers", "trl", "vllm", "wandb", "xxhash",
}  # fmt: skip


@app.command()
def train(
    config: ConfigOption = "",
    overrides: SetOption = [],  # noqa: B006 - typer copies it
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print configuration and placement, start nothing")
    ] = False,
    resume: Annotated[str, typer.Option("--resume", help="folder or id of a run to go on with")] = "",
) -> None:
    """GRPO through served replicas; evaluates at the end."""
    if config and resume:
        raise ConfigError("--resume goes on with the run's own configuration: leave --config out, change with --set")
    settings, run = chosen(config, resume, overrides)
    if dry_run:
        console.print(settings.to_yaml(), markup=False, highlight=False)
        console.print(placement(settings))
        return
    _train(settings, run)


def chosen(config: str, run: str, overrides: Sequence[str]) -> tuple[TrainConfig, RunFolder | None]:
    """The configuration of --config, or that of --run with its folder. Raises ConfigError."""
    if run:
        from training import runs

        folder = runs.find(run)
        return TrainConfig.parse(folder.load_config().dump(), overrides, source=str(folder.config)), folder
    if config:
        return TrainConfig.load(config, overrides), None
    raise ConfigError("name a configuration with --config, or a run by its folder or id")


def _train(config: TrainConfig, resumed: RunFolder | None) -> None:
    from training import checkpoint, runs
    from training.evaluate import evaluate, table
    from training.grpo import session
    from training.grpo import train as run_grpo
    from training.plots import learning_curve

    run = resumed or runs.create(config)
    console.print(f"run folder      {run.path}", soft_wrap=True)
    latest = checkpoint.steps(run.checkpoints)
    first = latest[-1] if latest else 0
    if resumed:
        console.print(f"resuming after step {first} of {config.steps}")
    model = _start(config, run)
    with session(config, run, model) as live:
        with bar("GRPO", config.steps) as advance:
            advance(first, "GRPO")

            def on_step(step: int, metrics: dict[str, float]) -> None:
                # a fresh coordinator counts from 0, whatever was done before the resume
                advance(
                    min(first + step + 1, config.steps), f"GRPO, success in rollouts {metrics['rollout/success']:.2f}"
                )

            run_grpo(live, on_step)
        console.print("evaluating on held-out situations")
        trained = evaluate(live, "trained", live.store.latest() or 0)
    picture = run.path / "learning_curve.png"
    if run.metrics.is_file():
        learning_curve(run.metrics, picture, f"{config.env.name}: {config.name}", {"trained": trained.success})
        console.print(f"learning curve  {picture}", soft_wrap=True)
    console.print(table([trained], f"{config.env.name}: {config.evaluation.episodes} held-out situations"))


def _start(config: TrainConfig, run: RunFolder) -> Path:
    """The policy that the run starts from; what an interrupted run made already is used again."""
    from training.grpo import start_model

    if (run.start_model / "config.json").is_file():
        return run.start_model
    init = run.path / "models" / "init"
    if not config.warmstart.enabled and (init / "config.json").is_file():
        return init
    if not config.warmstart.enabled:
        return start_model(config, run)
    with bar("warm start", config.warmstart.steps) as advance:
        return start_model(config, run, lambda step, _, loss: advance(step, f"warm start, loss {loss:.3f}"))


@contextmanager
def bar(title: str, total: int) -> Iterator[Any]:
    """A progress bar with the time left; yields `advance(done, description)`."""
    from training.quickstart import bars

    with bars(console) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done, description: progress.update(task, completed=done, description=description)


def placement(config: TrainConfig) -> Table:
    """Who runs where, on how much."""
    shown = Table(title="placement")
    for column in ("role", "processes", "CPUs each", "GPUs each", "custom resources each"):
        shown.add_column(column)
    replicas, learner, engine = config.serving.replicas, config.learner, config.serving.engine
    # device: auto takes what the replica's machine has; a learner on GPUs says that there are some
    on_gpu = engine.device == "gpu" or (engine.device == "auto" and learner.gpus_per_worker > 0)
    count = f"{replicas.min_replicas}..{replicas.max_replicas}"
    rows: list[tuple[str, object, float, float, dict[str, float]]] = [
        ("learner", learner.workers, learner.cpus_per_worker, learner.gpus_per_worker, learner.resources),
        ("rollout worker", config.rollout.workers, config.rollout.worker_cpus, 0, {}),
        ("coordinator", 1, 0.1, 0, {}),
    ]
    if config.serving.connect:
        rows.insert(0, (f"policy replica (of {config.serving.connect})", "running", 0, 0, {}))
    else:
        gpus = engine.gpus if on_gpu else 0
        rows.insert(0, ("policy replica", count, replicas.num_cpus, gpus, replicas.resources))
        rows.append(("ingress", 1, 0.1, 0, {}))
    for role, processes, cpus, gpu, resources in rows:
        shown.add_row(
            role, str(processes), f"{cpus:g}", f"{gpu:g}", ", ".join(f"{k}: {v:g}" for k, v in resources.items())
        )
    return shown


@app.command()
def warmstart(
    config: ConfigOption,
    output: Annotated[Path, typer.Option(help="folder of the model")],
    overrides: SetOption = [],  # noqa: B006
) -> None:
    """Supervised fine-tuning on scripted demonstrations."""
    import tempfile

    from training import tiny
    from training.cluster import model_folder_error
    from training.warmstart import warmstart as run_warmstart

    settings = TrainConfig.load(config, overrides)
    with tempfile.TemporaryDirectory() as scratch, bar("warm start", settings.warmstart.steps) as advance:
        if settings.model.source == "tiny":
            model = tiny.build(settings.model.tiny, settings.env, settings.seed, scratch)
        else:
            problem = model_folder_error(settings.model.source)
            if problem:
                raise ConfigError(problem)
            model = Path(settings.model.source)
        loss = run_warmstart(
            settings, model, output, lambda step, _, loss: advance(step, f"warm start, loss {loss:.3f}")
        )
    console.print(f"loss {loss:.4f}; model in {output}", soft_wrap=True)


@app.command("eval")
def evaluate_models(
    config: ConfigOption = "",
    run: RunOption = "",
    model: Annotated[list[Path], typer.Option(help="model folder, may be repeated; with --run: its final model")] = [],  # noqa: B006
    history: Annotated[list[str], typer.Option(help="history strategy, may be repeated; default: the configured")] = [],  # noqa: B006
    episodes: Annotated[int, typer.Option(help="held-out situations; 0: as configured")] = 0,
    overrides: SetOption = [],  # noqa: B006
) -> None:
    """Success, mean return, outcomes and illegal actions on held-out situations, with 95 % intervals."""
    _evaluate(config, run, model, history, episodes, overrides)


@app.command()
def compare(
    model: Annotated[list[Path], typer.Option(help="model folder; give two or more")],
    config: ConfigOption = "",
    run: RunOption = "",
    episodes: Annotated[int, typer.Option(help="held-out situations; 0: as configured")] = 0,
    overrides: SetOption = [],  # noqa: B006
) -> None:
    """Several models of one architecture on the same situations; paired difference to the first, with interval."""
    if len(model) < 2:
        raise ConfigError("compare needs --model at least twice")
    _evaluate(config, run, model, [], episodes, overrides)


def _evaluate(
    config: str, run: str, models: list[Path], histories: list[str], episodes: int, overrides: list[str]
) -> None:
    from envs import registry
    from envs.history import make_history
    from training import runs
    from training.evaluate import evaluate, publish_folder, table
    from training.grpo import session

    more = [f"evaluation.episodes={episodes}"] if episodes else []
    settings, folder = chosen(config, run, [*overrides, *more])
    models = [path.resolve() for path in models] or [_trained(folder)]
    one_architecture(models)
    variants = [TrainConfig.parse(settings.dump(), [f"env.history={name}"]) for name in histories] or [settings]
    spec = registry.spec(settings.env.name, **(settings.env.kwargs | settings.env.eval_kwargs))
    for variant in variants:
        make_history(variant.env.history, spec)  # an unsupported one is refused before anything starts
    out = runs.create(settings, "eval")
    results: list[Evaluation] = []
    with session(settings, out, models[0]) as live:
        for index, path in enumerate(models):
            version = publish_folder(live, path) if index else 0
            for variant in variants:
                label = chr(ord("A") + index) + f" {path.name}" + (f" {variant.env.history}" if histories else "")
                with varied(live, variant) as session_of_variant:
                    results.append(evaluate(session_of_variant, label, version))
    for index, path in enumerate(models):
        console.print(f"{chr(ord('A') + index)}  {path}", soft_wrap=True)
    console.print(table(results, f"{settings.env.name}: {settings.evaluation.episodes} held-out situations"))
    console.print(f"results in {out.evaluations}", soft_wrap=True)


def _trained(folder: RunFolder | None) -> Path:
    """The newest model of a run. Raises ConfigError."""
    if folder is None:
        raise ConfigError("name a model folder with --model, or a run with --run")
    for model in (folder.final_model, folder.start_model):
        if (model / "config.json").is_file():
            return model
    raise ConfigError(f"{folder.path} has no model yet: let the run finish")


def one_architecture(models: Sequence[Path]) -> None:
    """Raises ConfigError unless one engine can hold all of them, one after the other, and they share a vocabulary."""
    keys = (
        "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "tie_word_embeddings",
    )  # fmt: skip
    first: dict[str, Any] = {}
    for model in models:
        if not (model / "config.json").is_file():
            raise ConfigError(f"{model} is no model folder: it has no config.json")
        described = json.loads((model / "config.json").read_text())
        found = {key: described.get(key) for key in keys}
        tokenizer = model / "tokenizer.json"
        if tokenizer.is_file():
            found["vocabulary"] = json.loads(tokenizer.read_text())["model"].get("vocab")
        first = first or found
        other = [key for key in found if found[key] != first.get(key)]
        if other:
            raise ConfigError(f"{model} differs from {models[0]} in {', '.join(other)}: evaluate it on its own")


@contextmanager
def varied(live: Session, config: TrainConfig) -> Iterator[Session]:
    """The same replicas, played under another configuration by a coordinator of its own."""
    if config == live.config:
        yield live
        return
    import ray

    from training.grpo import APPLICATION, Session
    from training.workers import Coordinator

    coordinator = Coordinator.options(num_cpus=0.1, max_concurrency=1000).remote(  # type: ignore[attr-defined]
        config.dump(), str(live.model), config.serving.connect or APPLICATION
    )
    try:
        yield Session(config, live.run, live.model, live.weights_root, coordinator)
    finally:
        ray.kill(coordinator)


@app.command()
def serve(config: ConfigOption, overrides: SetOption = []) -> None:  # noqa: B006
    """Starts the Serve application and blocks until Ctrl-C."""
    import threading

    from training import cluster

    settings = ServeConfig.load(config, overrides)
    if settings.http.port == 0:
        http = settings.http.model_copy(update={"port": cluster.free_port()})
        settings = settings.model_copy(update={"http": http})
    console.print(f"starting {len(settings.policies)} policies on port {settings.http.port}")
    with cluster.ray_session(), cluster.application(settings):
        console.print(served(settings))
        console.print(
            "routes: / /health /metrics /v1/models /v1/completions /v1/chat/completions /tokenize /detokenize"
        )
        where = f"http://{settings.http.host}:{settings.http.port}{settings.http.root_path.rstrip('/')}"
        console.print(f"ready: {where}   (Ctrl-C stops)", soft_wrap=True)
        threading.Event().wait()


def served(config: ServeConfig) -> Table:
    """The policies with their limits."""
    columns = (
        "policy",
        "model",
        "replicas",
        "prompt + answer, tokens",
        "answer, tokens",
        "at once",
        "queue",
        "deadline",
    )
    shown = Table(*columns, title=f"{config.name}: bodies up to {config.max_body_bytes / 2**20:g} MiB")
    for policy in config.policies:
        replicas = policy.replicas
        limits = (policy.engine.max_model_len, policy.max_new_tokens, replicas.max_ongoing_requests)
        count = f"{replicas.min_replicas}..{replicas.max_replicas}"
        queue, deadline = str(replicas.max_queued_requests), f"{policy.request_deadline_s:g} s"
        shown.add_row(policy.name, policy.model, count, *map(str, limits), queue, deadline)
    return shown


@app.command()
def play(
    env: Annotated[str, typer.Option(help="environment to play by hand, with its defaults")] = "",
    config: ConfigOption = "",
    run: RunOption = "",
    model: Annotated[Path | None, typer.Option(help="model folder; default: the run's newest")] = None,
    human: Annotated[bool, typer.Option("--human", help="you type the answers")] = False,
    seed: Annotated[int, typer.Option(help="situation")] = 0,
) -> None:
    """An episode turn by turn: watch a policy (--run, --config with --model), or play by hand (--human, --env)."""
    from envs import registry
    from training.play import play_by_hand

    def show(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    if env:
        play_by_hand(registry.make(env), seed, input, show)
        return
    settings, folder = chosen(config, run, [])
    if human:
        kwargs = settings.env.kwargs | settings.env.eval_kwargs
        play_by_hand(registry.make(settings.env.name, **kwargs), seed, input, show)
        return
    path = model.resolve() if model else _trained(folder)
    one_architecture([path])
    from training.evaluate import watch
    from training.play import transcript

    console.print(f"starting a replica of {path}", soft_wrap=True)
    show(transcript(watch(settings, path, seed)))


@app.command()
def doctor(
    config: ConfigOption = "",
    run: RunOption = "",
    model: Annotated[Path | None, typer.Option(help="model folder; default: the run's newest")] = None,
    turns: Annotated[int, typer.Option(min=1, help="answers to compare")] = 64,
) -> None:
    """Samples through a replica, scores with the learner, and names the cause when they differ."""
    import ray

    from training import runs
    from training.doctor import check_episodes
    from training.grpo import session

    settings, folder = chosen(config, run, [])
    path = model.resolve() if model else _trained(folder)
    one_architecture([path])
    others = [folder.start_model, folder.path / "models" / "init"] if folder else []
    others = [other for other in others if other != path and (other / "config.json").is_file()]
    first = settings.evaluation.first_seed
    with session(settings, runs.create(settings, "doctor"), path) as live:
        seeds = list(range(first, first + turns))
        episodes = ray.get(live.coordinator.evaluate.remote(seeds, 0))
    report = check_episodes(settings, path, episodes, turns, others=others)
    shown = Table("token of the answer", "max |difference|", "mean |difference|", title="sampler - learner")
    for position, (largest, mean) in enumerate(report.by_position):
        shown.add_row(str(position), f"{largest:.2e}", f"{mean:.2e}")
    console.print(shown)
    console.print(f"max {report.max_difference:.2e}  mean {report.mean_difference:.2e}")
    if not report.healthy:
        print(f"rayward: {report.cause}", file=sys.stderr)
        raise typer.Exit(1)
    console.print("healthy: the learner scores what the replica samples")


@app.command()
def sweep(config: ConfigOption, overrides: SetOption = []) -> None:  # noqa: B006
    """Ray Tune over whole runs (configs/sweep/NAME.yaml); prints a table and the best trial's configuration."""
    from configs.tuning import SweepConfig

    settings = SweepConfig.load(config, overrides)
    from training.tune import run_sweep

    run_sweep(settings, lambda what: console.print(what, soft_wrap=True))


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
    found: list[type[BaseException]] = [ConfigError, PolicyError]
    for module, name in (
        ("envs.registry", "UnknownEnvironment"),
        ("envs.base", "SettingError"),
        ("envs.history", "HistoryUnsupported"),
        ("training.renderer", "TemplateError"),
        ("training.cluster", "ClusterError"),
        ("training.grpo", "TrainingFailed"),
        ("training.rollout", "RolloutFailed"),
        ("training.checkpoint", "CheckpointError"),
        ("training.tune", "SweepFailed"),
        ("deployments.weights", "WeightsError"),
    ):
        if module in sys.modules:
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


def run(arguments: list[str] | None = None) -> int:
    """Exit code of a command: 0, 1 for a known error (its message on stderr), 2 for usage, 130 for Ctrl-C."""
    try:
        code = app(arguments, standalone_mode=False)  # typer answers Ctrl-C and Exit by their code
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in OF_EXTRAS:
            raise
        print(f"rayward: {error.name} is not installed: pip install 'rayward[cpu,train]'", file=sys.stderr)
        return 1
    except Exception as error:
        if hasattr(error, "show"):  # a usage error of the command line
            error.show()
            return 2
        cause = getattr(error, "cause", None)  # Ray carries the error of an actor inside its own
        known = next((e for e in (error, cause) if isinstance(e, known_errors())), None)
        if known is None:
            raise
        print(f"rayward: {known}", file=sys.stderr)
        return 1
    return code if isinstance(code, int) else 0


def main() -> None:
    sys.exit(run())


def run_train_module() -> None:
    """`python -m training.grpo` is `rayward train`."""
    sys.exit(run(["train", *sys.argv[1:]]))
