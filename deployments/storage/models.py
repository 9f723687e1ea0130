"""Which model folder a command means, and whether several of them fit one engine. Reads files only."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.base import ConfigError
from deployments.storage import runs
from deployments.storage.tensors import weights_problem

SHAPE_KEYS = (
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "tie_word_embeddings",
)  # fmt: skip


def find(name: str | Path) -> Path:
    """A model folder in Hugging Face format, or the newest model of a run given by its folder or id.

    Raises ConfigError.
    """
    folder = Path(name).expanduser()
    if (folder / "models").is_dir():
        return newest(runs.RunFolder(folder.resolve()))
    if folder.is_dir():
        problem = folder_problem(folder)
        if problem:
            raise ConfigError(problem)
        return folder.resolve()
    try:
        run = runs.find(str(name))
    except ConfigError:
        raise ConfigError(
            f"model folder {str(name)!r} does not exist: name a folder in Hugging Face format (config.json, "
            "*.safetensors), or a run by its folder or id"
        ) from None
    return newest(run)


def newest(run: runs.RunFolder) -> Path:
    """The trained policy of a run, else the one it started from. A folder whose weights are not whole (the disk was
    full, or its writer was killed) is no model. Raises ConfigError where there is none."""
    problems = []
    for model in (run.final_model, run.start_model):
        if not model.is_dir():
            continue
        problem = folder_problem(model)
        if problem is None:
            return model
        problems.append(problem)
    found = f" ({'; '.join(problems)})" if problems else ""
    raise ConfigError(f"{run.path} has no model yet{found}: let the run finish (rayward train --resume {run.path})")


def labels(models: Sequence[Path]) -> dict[str, Path]:
    """Short names for a table: the folder's name for one model, letters in front for several."""
    if len(models) == 1:
        return {_label(models[0]): models[0]}
    return {f"{chr(ord('A') + index)} {_label(model)}": model for index, model in enumerate(models)}


def _label(model: Path) -> str:
    """The folder's name; for a model of the hub, which lies in models--OWNER--NAME/snapshots/REVISION, NAME."""
    return model.parents[1].name.rpartition("--")[2] if model.parent.name == "snapshots" else model.name


def check_same_architecture(models: Sequence[Path]) -> None:
    """One engine holds them one after the other and one renderer writes their prompts. Raises ConfigError."""
    first = _described(models[0])
    for model in models[1:]:
        found = _described(model)
        other = [key for key in first if found[key] != first[key]]
        if other:
            raise ConfigError(f"{model} differs from {models[0]} in {', '.join(other)}: evaluate it on its own")


def _described(model: Path) -> dict[str, Any]:
    config = json.loads((model / "config.json").read_text())
    described = {key: config.get(key) for key in SHAPE_KEYS}
    vocabulary, template = model / "tokenizer.json", model / "chat_template.jinja"
    described["vocabulary"] = json.loads(vocabulary.read_text())["model"].get("vocab") if vocabulary.is_file() else None
    described["chat template"] = template.read_text() if template.is_file() else None
    return described


def model_folder_error(model: str) -> str | None:
    """Why `model` cannot be served, if it is a path: checked before any process starts."""
    looks_like_path = model.startswith((".", "/", "~")) or Path(model).exists()
    if not looks_like_path:
        return None
    if not Path(model).is_dir():
        return f"model folder {model!r} does not exist: name one in Hugging Face format (config.json, *.safetensors)"
    return folder_problem(Path(model))


def context_error(model: str, max_model_len: int) -> str | None:
    """Why a model folder cannot be served with this context; None when it can, and when that cannot be told from its
    config.json (positions that are scaled, or none that are named)."""
    file = Path(model) / "config.json"
    if not file.is_file() or os.environ.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN") == "1":
        return None
    config = json.loads(file.read_text())
    config = config.get("text_config", config)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    longest = config.get("max_position_embeddings")
    if not isinstance(longest, int) or rope.get("rope_type", rope.get("type", "default")) != "default":
        return None
    if max_model_len <= longest:
        return None
    return (
        f"engine.max_model_len is {max_model_len}, and the model in {model!r} has {longest} positions "
        f"(max_position_embeddings): set engine.max_model_len to at most {longest}"
    )


def folder_problem(folder: Path) -> str | None:
    """Why a folder is no model; None when it is one."""
    if not (folder / "config.json").is_file():
        return f"model folder {str(folder)!r} has no config.json: it is not in Hugging Face format"
    problem = weights_problem(folder)
    if problem:
        return f"model folder {str(folder)!r} is no whole model: {problem}. Write or download it again"
    return None
