"""A chunk policy's checkpoint: a folder with train_config.json and model.safetensors. torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from configs.base import ConfigError
from deployments.chunks.description import TRAIN_CONFIG, ChunkDescription, read_description
from deployments.chunks.model import FlowPolicy
from deployments.storage.atomic import written_whole

WEIGHTS = "model.safetensors"
TINY: dict[str, Any] = {
    "name": "tiny chunk policy",
    "resolution": [16, 16],
    "num_cams": 2,
    "action_dim": 7,
    "max_action_dim": 8,
    "chunk_len": 10,
    "max_delay": 4,
    "model": {"width": 32, "heads": 2, "encoder_layers": 1, "expert_layers": 1, "vocabulary": 64},
}


def save(folder: Path, description: ChunkDescription, weights: Mapping[str, Tensor]) -> None:
    """Writes the checkpoint whole or not at all. Raises ConfigError when `folder` holds something else."""
    with written_whole(folder) as staged:
        write(staged, description, weights)


def write(folder: Path, description: ChunkDescription, weights: Mapping[str, Tensor]) -> None:
    """Writes the files of a checkpoint into an empty folder."""
    (folder / TRAIN_CONFIG).write_text(json.dumps(description.dump(), indent=2))
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, folder / WEIGHTS)


def load(folder: Path) -> FlowPolicy:
    """The policy, on the CPU in float32; its `description` is the folder's. Raises ConfigError: a missing file, tensors
    that are missing, unknown or of another shape, values that are not finite."""
    model = untrained(read_description(folder))
    model.load_state_dict(read_weights(folder, model))
    return model.eval()


def read_weights(folder: Path, model: FlowPolicy) -> dict[str, Tensor]:
    """The tensors of all *.safetensors in `folder` (a checkpoint, or a version of a weight store), which fit the model.
    Raises ConfigError, and then the model is as before."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError(f"checkpoint folder {str(folder)!r} has no {WEIGHTS}: write the checkpoint again")
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"{file} is no whole safetensors file ({error}): write the checkpoint again") from error
    problem = _problem(tensors, model.state_dict())
    if problem:
        raise ConfigError(f"the weights in {str(folder)!r} do not fit its {TRAIN_CONFIG}: {problem}")
    return tensors


def _problem(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    missing = [name for name in expected if name not in found]
    if missing:
        return f"{len(missing)} tensor(s) are missing, the first is {missing[0]}"
    unknown = [name for name in found if name not in expected]
    if unknown:
        return f"{len(unknown)} tensor(s) are unknown to this model, the first is {unknown[0]}"
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            return f"{name} has shape {list(found[name].shape)}, expected {list(tensor.shape)}"
        if not torch.isfinite(found[name]).all():
            return f"{name} holds values that are not finite"
    return None


def untrained(description: ChunkDescription, seed: int = 0) -> FlowPolicy:
    """Random weights; the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FlowPolicy(description)


def tiny_checkpoint(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Makes a checkpoint with random weights on the spot: two cameras of 16x16, states of up to 32 numbers, chunks of
    10 actions of 7 numbers. `changes`: fields of ChunkDescription."""
    settings = {**TINY, **changes}
    if "statistics" not in settings:
        state_dim, action_dim = settings.get("max_state_dim", 32), settings["action_dim"]
        settings["statistics"] = {
            "default": {
                "state": {"kind": "mean_std", "mean": [0.0] * state_dim, "std": [1.0] * state_dim},
                "action": {"kind": "mean_std", "mean": [0.0] * action_dim, "std": [1.0] * action_dim},
            }
        }
    description = ChunkDescription.parse(settings)
    save(folder, description, untrained(description, seed).state_dict())
    return folder
