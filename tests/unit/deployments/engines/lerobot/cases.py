"""A folder as LeRobot writes it, for the package that stands in for it, and requests to its policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from deployments.protocol.act import ChunkRequest

PACKAGE = Path(__file__).parent / "package"
FRONT, WRIST = "observation.images.front", "observation.images.a_wrist"
HEIGHT, WIDTH, HORIZON = 4, 6, 3
STATE_SCALE, ACTION_SCALE = 2.0, 10.0
# Action 0 is state 0 and ten times the front camera; action 1 is state 1 and ten times the wrist camera.
WEIGHT = torch.tensor([[1.0, 0.0, 10.0, 0.0], [0.0, 1.0, 0.0, 10.0]])


def camera(height: int = HEIGHT, width: int = WIDTH) -> dict[str, Any]:
    return {"type": "VISUAL", "shape": [3, height, width]}


def config(kind: str = "linear", **changes: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "n_obs_steps": 3 if kind == "looking_back" else 1,
        "input_features": {"observation.state": {"type": "STATE", "shape": [2]}, FRONT: camera(), WRIST: camera()},
        "output_features": {"action": {"type": "ACTION", "shape": [2]}},
        "chunk_size": HORIZON,
        "device": "mps",
        "pretrained_backbone_weights": "ResNet18_Weights.IMAGENET1K_V1",
    } | changes


def lerobot_folder(folder: Path, kind: str = "linear", **changes: Any) -> Path:
    """`changes`: of config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(kind, **changes)))
    (folder / "train_config.json").write_text(json.dumps({"dataset": "LeRobot's own"}))
    (folder / "policy_preprocessor.json").write_text(json.dumps({"scale": STATE_SCALE}))
    (folder / "policy_postprocessor.json").write_text(json.dumps({"scale": ACTION_SCALE}))
    save_file({"layer.weight": WEIGHT}, folder / "model.safetensors")
    return folder


def request(name: str = "r", front: int = 0, wrist: int = 0, **changes: Any) -> ChunkRequest:
    """Cameras of one grey each; a state of (4, 6)."""
    images = np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)
    images[0], images[1] = front, wrist
    fields: dict[str, Any] = {
        "images": images,
        "image_mask": np.ones(2, np.bool_),
        "state": np.array([4.0, 6.0], np.float32),
        "prompt": "",
    } | changes
    return ChunkRequest(name, **fields)
