"""LeRobot's policy folders: what config.json says about what a policy takes and gives. No torch, no LeRobot.

The folder is what `save_pretrained` writes (of a training run, checkpoints/last/pretrained_model): config.json
with the policy's `type`, model.safetensors, and the files of its processors. LeRobot puts a train_config.json of its
own beside them, so that config.json decides whose folder it is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from configs.base import ConfigError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
PREPROCESSOR = "policy_preprocessor.json"
POSTPROCESSOR = "policy_postprocessor.json"
FILES = (WEIGHTS, PREPROCESSOR, POSTPROCESSOR)
STATE = "observation.state"
ACTION = "action"
EMPTY_CAMERA = "observation.images.empty_camera"  # of a policy that was made for more cameras than it was trained with


class _Feature(BaseModel):
    model_config = ConfigDict(extra="ignore")

    type: str
    shape: tuple[int, ...]


class _Config(BaseModel):
    """What of config.json is read here. Everything else is LeRobot's."""

    model_config = ConfigDict(extra="ignore")

    type: str
    input_features: dict[str, _Feature]
    output_features: dict[str, _Feature]
    n_obs_steps: int = Field(1, ge=1)


@dataclass(frozen=True, slots=True)
class LeRobotPolicy:
    """`kind`: LeRobot's name of the policy class, e.g. act. `cameras`: their keys, in the order of config.json, which
    is the order of a client's images; all have the same `resolution` (height, width). `state_dim`: 0 where the policy
    takes no state. `observations`: how many of the last observations the policy looks at."""

    kind: str
    cameras: tuple[str, ...]
    resolution: tuple[int, int]
    state_dim: int
    action_dim: int
    observations: int


def is_lerobot(folder: Path) -> bool:
    """Whether config.json in `folder` is that of a LeRobot policy."""
    try:
        data = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and "type" in data and "input_features" in data


def read_policy(folder: Path) -> LeRobotPolicy:
    """What config.json says. Raises ConfigError: a missing file, a policy that no client here could ask."""
    missing = [name for name in (CONFIG, *FILES) if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            f"LeRobot policy folder {str(folder)!r} has no {' and no '.join(missing)}: name the folder that LeRobot's "
            "save_pretrained has written (of a training run: checkpoints/last/pretrained_model)"
        )
    file = folder / CONFIG
    try:
        config = _Config.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    return _policy(config, file)


def _policy(config: _Config, file: Path) -> LeRobotPolicy:
    inputs = {name: feature for name, feature in config.input_features.items() if not name.startswith(EMPTY_CAMERA)}
    cameras = {name: feature.shape for name, feature in inputs.items() if feature.type == "VISUAL"}
    others = [name for name in inputs if name not in cameras and name != STATE]
    if others:
        raise ConfigError(
            f"{file}: the policy wants {', '.join(others)}, which no client can send: only cameras and {STATE}"
        )
    if not cameras:
        raise ConfigError(f"{file}: the policy has no camera, and robots send at least one image")
    if any(len(shape) != 3 or shape[0] != 3 for shape in cameras.values()):
        raise ConfigError(f"{file}: a camera is not [3, height, width]: {cameras}")
    if len(set(cameras.values())) > 1:
        raise ConfigError(f"{file}: the cameras differ in their resolution, which is not supported: {cameras}")
    if ACTION not in config.output_features:
        raise ConfigError(f"{file}: output_features has no {ACTION}")
    state = inputs.get(STATE)
    _, height, width = next(iter(cameras.values()))
    return LeRobotPolicy(
        kind=config.type,
        cameras=tuple(cameras),
        resolution=(height, width),
        state_dim=state.shape[0] if state is not None else 0,
        action_dim=config.output_features[ACTION].shape[0],
        observations=config.n_obs_steps,
    )
