"""Configurations of launchers for the library verifiers, read as ours. Pure: data in, data out.

Their layout has the sections `modal`, `model`, `training`, `vllm` and `wandb`. Each key that a file gives has a `Note`:
which setting of ours it becomes, or why it has no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from configs.base import ConfigError, Strict, YamlConfig

GROUP_SIZE = 8  # episodes of one group, where nothing else says how many
ROOM = 16384  # the default of learner.max_tokens_per_microbatch, which a longer context raises


class Model(Strict):
    """Their section `model`."""

    base_model: str | None = None
    max_token_length: int | None = Field(None, ge=16)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] | None = None
    overrides: dict[str, str] | None = None


class Training(Strict):
    """Their section `training`."""

    environment: str | None = None
    steps: int | None = Field(None, ge=1)
    batch_size: int | None = Field(None, ge=1)
    gradient_accumulation_steps: int | None = Field(None, ge=1)
    learning_rate: float | None = Field(None, gt=0)
    max_grad_norm: float | None = Field(None, gt=0)
    scripts: dict[str, str] | None = None


class Vllm(Strict):
    """Their section `vllm`."""

    gpu_memory_utilization: float | None = Field(None, gt=0, le=1)
    max_model_len: int | None = Field(None, ge=16)
    block_size: int | None = Field(None, ge=1)
    enforce_eager: bool | None = None
    enable_auto_tool_choice: bool | None = None
    tool_call_parser: str | None = None


class Wandb(Strict):
    """Their section `wandb`."""

    project: str | None = None
    enabled: bool | None = None


class LauncherConfig(YamlConfig):
    """A launcher's file. What `modal` holds is Modal's own, and any key of it is read."""

    modal: dict[str, Any] = Field(default_factory=dict)
    model: Model = Field(default_factory=Model)
    training: Training = Field(default_factory=Training)
    vllm: Vllm = Field(default_factory=Vllm)
    wandb: Wandb = Field(default_factory=Wandb)


# Their key -> our setting, which takes the value as it is.
SAME = {
    "model.base_model": "model.source",
    "model.attn_implementation": "model.attn_implementation",
    "training.steps": "steps",
    "training.learning_rate": "optimizer.lr",
    "training.max_grad_norm": "optimizer.clip_norm",
    "training.scripts": "scripts",
    "vllm.gpu_memory_utilization": "serving.engine.gpu_memory_utilization",
    "vllm.block_size": "serving.engine.extra.block_size",
    "vllm.enforce_eager": "serving.engine.enforce_eager",
    "wandb.project": "tracking.wandb_project",
}
GPU_KEYS = {"gpu": "--gpu-type", "gpu_type": "--gpu-type", "gpu_count": "--gpu-count"}  # of `modal`, as our options
NOT_MODAL = "rayward runs on Ray, on this machine or on the cluster of RAY_ADDRESS, not on Modal"


@dataclass(frozen=True)
class Note:
    """What became of one key: `ours` is the setting it became; None: it has no effect, because of `reason`."""

    key: str
    ours: str | None
    value: Any = None
    reason: str = ""

    def __str__(self) -> str:
        if self.ours is None:
            return f"{self.key}: without effect, because {self.reason}"
        why = f" ({self.reason})" if self.reason else ""
        return f"{self.key}: {self.ours} = {self.value}{why}"


@dataclass(frozen=True)
class Translation:
    """A launcher's file in our terms: `settings` by their dotted keys, to be laid over a training configuration, and
    the GPUs that it asks for ("" and 0: none)."""

    settings: Mapping[str, Any]
    notes: tuple[Note, ...]
    environment: str = ""
    gpu_type: str = ""
    gpu_count: int = 0


def is_launcher(data: Mapping[str, Any]) -> bool:
    """Whether a YAML document has a launcher's layout: by a section or a key of `model` that ours does not have."""
    model = data.get("model")
    own = isinstance(model, Mapping) and not {"base_model", "max_token_length"}.isdisjoint(model)
    return own or not {"modal", "training", "vllm", "wandb"}.isdisjoint(data)


def translate(
    data: Mapping[str, Any], named: Callable[[str], str], source: str = "config", environment: str = ""
) -> Translation:
    """The file in our terms. `named(NAME)` is the environment of ours that they call NAME; it raises ValueError where
    there is none. `environment`: played instead of theirs.

    Raises ConfigError, which names the nearest known key, for what does not fit the layout; ValueError of `named`.
    """
    config = LauncherConfig.parse({key: value for key, value in data.items() if value is not None}, source=source)
    given = {
        f"{section}.{key}": value
        for section in ("model", "training", "vllm", "wandb")
        for key, value in getattr(config, section)
        if value is not None
    }
    notes = [Note(key, ours, given[key]) for key, ours in SAME.items() if key in given]
    notes += [*_environment(given, named, environment), *_overrides(given, named), *_context(given), *_dtype(given)]
    notes += [*_batch(given), *_tools(given), *_wandb(given)]
    gpus, about_modal = _modal(config.modal, source)
    settings = {note.ours: note.value for note in notes if note.ours is not None and not note.ours.startswith("--")}
    played = environment or str(settings.get("env.name", ""))
    return Translation(settings, (*notes, *about_modal), played, *gpus)


def _environment(given: Mapping[str, Any], named: Callable[[str], str], instead: str) -> list[Note]:
    key = "training.environment"
    if key not in given:
        return []
    if instead:
        return [Note(key, None, reason=f"--env {instead} is played instead")]
    return [Note(key, "env.name", named(given[key]))]


def _overrides(given: Mapping[str, Any], named: Callable[[str], str]) -> list[Note]:
    """Environments that are not ours are named, and not an error: the file serves several."""
    known, notes = {}, []
    for name, model in given.get("model.overrides", {}).items():
        try:
            known[named(name)] = model
        except ValueError:
            notes.append(Note(f"model.overrides.{name}", None, reason="there is no such environment"))
    return [Note("model.overrides", "model.overrides", known), *notes] if known else notes


def _context(given: Mapping[str, Any]) -> list[Note]:
    """Both of their bounds are one here: the longest prompt plus answer, of which the smaller counts."""
    keys = [key for key in ("model.max_token_length", "vllm.max_model_len") if key in given]
    if not keys:
        return []
    longest = min(given[key] for key in keys)
    why = "the smaller of the two, which are one setting here" if len(keys) == 2 else ""
    notes = [Note(key, "serving.engine.max_model_len", longest, why) for key in keys]
    room = Note(keys[0], "learner.max_tokens_per_microbatch", longest, "no sequence may be longer")
    return [*notes, room] if longest > ROOM else notes


def _dtype(given: Mapping[str, Any]) -> list[Note]:
    key = "model.dtype"
    if key not in given:
        return []
    theirs = given[key]
    dtype, why = (theirs, "") if theirs in ("float32", "bfloat16") else ("bfloat16", "the learner has no " + theirs)
    return [Note(key, ours, dtype, why) for ours in ("model.dtype", "serving.engine.dtype")]


def _batch(given: Mapping[str, Any]) -> list[Note]:
    """Their two numbers make the episodes of one optimiser step. How many of them are in one forward pass, which is
    what theirs tell apart, follows from learner.max_tokens_per_microbatch here."""
    keys = [key for key in ("training.batch_size", "training.gradient_accumulation_steps") if key in given]
    if not keys:
        return []
    if keys == ["training.gradient_accumulation_steps"]:
        return [Note(keys[0], None, reason="micro-batches follow from learner.max_tokens_per_microbatch")]
    episodes = given[keys[0]] * given.get("training.gradient_accumulation_steps", 1)
    size = max(2, min(GROUP_SIZE, episodes))
    groups = -(-episodes // size)
    why = f"{episodes} episodes per step, in groups of {size}"
    return [
        note
        for key in keys
        for note in (Note(key, "rollout.groups_per_step", groups, why), Note(key, "rollout.group_size", size, why))
    ]


def _tools(given: Mapping[str, Any]) -> list[Note]:
    choice, parser = "vllm.enable_auto_tool_choice", "vllm.tool_call_parser"
    ours = "serving.engine.tool_call_parser"
    if given.get(choice) is False:
        refused = [Note(choice, ours, None, "tools are refused")]
        return [*refused, *([Note(parser, None, reason=f"{choice} is false")] if parser in given else [])]
    notes = [Note(parser, ours, given[parser])] if parser in given else []
    if choice in given:
        notes.append(Note(choice, None, reason=f"tools are taken wherever {ours} is set"))
    return notes


def _wandb(given: Mapping[str, Any]) -> list[Note]:
    key = "wandb.enabled"
    return [Note(key, "tracking.wandb", "online" if given[key] else "off")] if key in given else []


def _modal(modal: Mapping[str, Any], source: str) -> tuple[tuple[str, int], list[Note]]:
    """(type, number) of the GPUs, and a note for each key. `gpu` may hold both, as in "H100:2". Raises ConfigError."""
    kind, _, several = str(modal.get("gpu_type") or modal.get("gpu") or "").partition(":")
    count = str(modal.get("gpu_count") or several or 0)
    if not count.isdigit():
        raise ConfigError(f"{source}: modal.gpu_count must be a whole number from 1 on (got {count!r})")
    notes = [
        Note(f"modal.{key}", GPU_KEYS[key], value)
        if value and key in GPU_KEYS
        else Note(f"modal.{key}", None, reason=NOT_MODAL)
        for key, value in modal.items()
    ]
    return (kind, int(count)), notes
