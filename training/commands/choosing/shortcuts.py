"""What short options mean: `--env vf-wordle --steps 200 --gpu-count 1 --gpu-type A100-40GB` as a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from configs import launcher
from configs.base import PACKAGE_DIR, ConfigError, apply_overrides, find_yaml, read_yaml
from configs.dotenv import run_names
from configs.sweep import as_overrides
from configs.training import TrainConfig
from envs import registry
from training.cluster import accelerators

Say = Callable[[str], None]
SHIPPED = PACKAGE_DIR / "train"


@dataclass(frozen=True)
class Shortcuts:
    """Options that are settings under a shorter name; "" and 0: not given."""

    env: str = ""
    model: str = ""
    steps: int = 0
    gpu_count: int = 0
    gpu_type: str = ""

    @property
    def starts_a_run(self) -> bool:
        """Whether one of them cannot change in a run that is resumed."""
        return bool(self.env or self.model)

    def settings(self, under: Mapping[str, Any]) -> dict[str, Any]:
        """By their dotted keys; `under`: the plain configuration that they are laid over. Raises ConfigError."""
        found: dict[str, Any] = {"model.source": self.model} if self.model else {}
        if self.steps:
            found["steps"] = self.steps
        if self.gpu_count or self.gpu_type:
            found |= {"learner.gpus_per_worker": 1, "serving.engine.device": "gpu"}
        if self.gpu_count == 1:
            found |= ONE_GPU
        if self.gpu_count > 1:
            found["learner.workers"] = self.gpu_count - 1
        if self.gpu_count > 2 and under.get("learner", {}).get("sharding", "none") == "none":
            found["learner.sharding"] = "fsdp2"
        if self.gpu_type:
            name = accelerators.resource(self.gpu_type)
            found |= {f"{owner}.resources.{name}": accelerators.SHARE for owner in ("learner", "serving.replicas")}
        if self.gpu_type.upper() == "T4":  # it does not compute in bfloat16
            found |= {"model.dtype": "float32", "serving.engine.dtype": "float16"}
        return found


NO_SHORTCUTS = Shortcuts()
# What is left of the engine's half is for the memory that it does not count, such as CUDA's own.
ONE_GPU = {
    "learner.workers": 1,
    "learner.gpus_per_worker": 0.5,
    "serving.engine.gpu_share": 0.5,
    "serving.engine.gpu_memory_utilization": 0.4,
}


def load(config: str, wanted: Shortcuts, overrides: Sequence[str], say: Say, real: bool = False) -> TrainConfig:
    """The configuration of a file (ours or a launcher's), or the one that ships for `wanted.env` (`real`: for a real
    model even where no GPU is asked for); the shortcuts are laid over it, then `overrides`. EXPERIMENTER and
    EXPERIMENT_NAME count less than a file of ours that the user names, and more than one that was chosen here. `say` is
    told what was chosen. Raises ConfigError and UnknownEnvironment."""
    wanted = replace(wanted, env=registry.named(wanted.env)) if wanted.env else wanted
    if not config:
        file = shipped(wanted.env, real or bool(wanted.gpu_type))
        say(f"configuration: {_shown(file)}")
        data = read_yaml(file) | run_names()
    else:
        file = find_yaml(config)
        data = read_yaml(file)
        if launcher.is_launcher(data):
            data, wanted = _translated(data, file, wanted, say)
        else:
            data = run_names() | _playing(data, wanted.env, say)
    settings = wanted.settings(data)
    say_gpus(wanted, settings, say)
    return TrainConfig.parse(data, [*as_overrides(settings), *overrides], source=str(file))


def say_gpus(wanted: Shortcuts, settings: Mapping[str, Any], say: Say) -> None:
    """What of `Shortcuts.settings` a user may not expect."""
    if "learner.sharding" in settings:
        say(f"the learner's {settings['learner.workers']} processes share the model: learner.sharding is fsdp2")
    if settings.get("serving.engine.dtype") == "float16":
        say("a T4 has no bfloat16: the learner computes in float32, the replicas in float16")
    if wanted.gpu_count == 1:
        say("the learner and a replica share the GPU, half of it each; they take turns")
    if wanted.gpu_count > 1:
        say(f"of {wanted.gpu_count} GPUs a replica has one, and the learner the others")
    if wanted.gpu_type and (note := accelerators.note(wanted.gpu_type)):
        say(note)


def shipped(env: str, real: bool) -> Path:
    """The file that ships for an environment: NAME.yaml for a real model, NAME_tiny.yaml for one that a laptop trains.
    Raises ConfigError where there is none."""
    file = SHIPPED / (f"{env}.yaml" if real else f"{env}_tiny.yaml")
    if file.is_file():
        return file
    what = "a real model" if real else "a tiny model"
    others = ", ".join(sorted(_shown(each) for each in SHIPPED.glob(f"{env}*.yaml"))) or "none"
    raise ConfigError(
        f"no configuration of {what} ships for the environment {env!r}: name a file with --config. "
        f"Files for this environment: {others}"
    )


def _shown(file: Path) -> str:
    return str(file.relative_to(PACKAGE_DIR.parent))


def _playing(data: dict[str, Any], env: str, say: Say) -> dict[str, Any]:
    """The configuration with another environment, whose settings are then its defaults: those of the file's own would
    not fit it."""
    before = data.get("env") or {}
    if not env or before.get("name", TrainConfig().env.name) == env:
        return data
    say(f"--env {env}: the file's section `env` is left out, since it is for another environment")
    return {**data, "env": _trained(env)}


def _trained(env: str) -> dict[str, Any]:
    """The section `env` of an environment by its name alone. The evaluation plays the held-out split where there is
    one, so training leaves it out."""
    return {"name": env, **({"kwargs": {"split": "train"}} if registry.has_split(env) else {})}


def _translated(data: Mapping[str, Any], file: Path, wanted: Shortcuts, say: Say) -> tuple[dict[str, Any], Shortcuts]:
    """A launcher's file over the configuration that ships for its environment, and the shortcuts with its GPUs."""
    found = launcher.translate(data, registry.named, str(file), wanted.env)
    say(f"{file} is a launcher's configuration:")
    for note in found.notes:
        say(f"  {note}")
    base: dict[str, Any] = {"env": _trained(found.environment)} if found.environment else {}
    below = SHIPPED / f"{found.environment}.yaml"
    if below.is_file():
        base = read_yaml(below)
        say(f"the other settings are those of {_shown(below)}")
    data = apply_overrides(base, as_overrides(found.settings)) | run_names()
    gpu_type, gpu_count = wanted.gpu_type or found.gpu_type, wanted.gpu_count or found.gpu_count
    return data, replace(wanted, gpu_type=gpu_type, gpu_count=gpu_count)
