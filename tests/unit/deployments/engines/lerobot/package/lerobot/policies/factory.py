"""Policies by name, and what stands before and behind them."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model
from torch import Tensor, nn

from lerobot.configs.policies import PreTrainedConfig


class Linear(nn.Module):
    """Step t of a chunk: weight @ [state, mean of each camera] + t + the number of characters of the task."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        assert config.pretrained_backbone_weights is None, "there is no network to fetch them from"
        self.config = config
        inputs = config.input_features["observation.state"]["shape"][0] + len(config.image_features)
        self.layer = nn.Linear(inputs, config.output_features["action"]["shape"][0], bias=False)
        self.reset()

    @classmethod
    def from_pretrained(cls, folder: Path, config: PreTrainedConfig, strict: bool = False) -> Linear:
        policy = cls(config)
        load_model(policy, folder / "model.safetensors", strict=strict)
        return policy.eval()

    def reset(self) -> None:
        self._queues: dict[str, deque[Tensor]] = {}

    def predict_action_chunk(self, batch: dict[str, Any]) -> Tensor:
        state, images = self._seen(batch)
        return self._chunk(torch.cat([state, images], dim=1), batch["task"])

    def _seen(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        for camera in self.config.image_features:
            assert batch[camera].shape[1:] == tuple(self.config.input_features[camera]["shape"])
        images = [batch[camera].mean(dim=(1, 2, 3)) for camera in self.config.image_features]
        return batch["observation.state"], torch.stack(images, dim=1)

    def _chunk(self, seen: Tensor, tasks: list[str]) -> Tensor:
        first = self.layer(seen) + torch.tensor([float(len(task)) for task in tasks])[:, None]
        return torch.stack([first + step for step in range(self.config.chunk_size)], dim=1)


class Drawing(Linear):
    """With noise on every action."""

    def predict_action_chunk(self, batch: dict[str, Any]) -> Tensor:
        chunk = super().predict_action_chunk(batch)
        return chunk + torch.randn(chunk.shape)


class LookingBack(Linear):
    """Sees the sum of its last observations, which are in queues."""

    def reset(self) -> None:
        names = ("observation.state", "observation.images", "action")
        self._queues = {name: deque(maxlen=self.config.n_obs_steps) for name in names}

    def predict_action_chunk(self, batch: dict[str, Any]) -> Tensor:
        seen = {name: torch.stack(list(self._queues[name]), dim=1) for name in batch if name in self._queues}
        images = seen["observation.images"].mean(dim=(3, 4, 5)).sum(dim=1)
        return self._chunk(torch.cat([seen["observation.state"].sum(dim=1), images], dim=1), batch["task"])


class Broken(Linear):
    def predict_action_chunk(self, batch: dict[str, Any]) -> Tensor:
        raise KeyError("observation.language")


POLICIES = {"linear": Linear, "drawing": Drawing, "looking_back": LookingBack, "broken": Broken}


def get_policy_class(name: str) -> type[Linear]:
    return POLICIES[name]


def make_pre_post_processors(
    config: PreTrainedConfig, pretrained_path: str, preprocessor_overrides: dict[str, dict[str, str]]
) -> tuple[Callable[[dict[str, Any]], dict[str, Any]], Callable[[Tensor], Tensor]]:
    """The state is divided by a scale; an action, of one step, is multiplied by one."""
    assert preprocessor_overrides == {"device_processor": {"device": config.device}}
    folder = Path(pretrained_path)
    state_scale = json.loads((folder / "policy_preprocessor.json").read_text())["scale"]
    action_scale = json.loads((folder / "policy_postprocessor.json").read_text())["scale"]

    def before(batch: dict[str, Any]) -> dict[str, Any]:
        return {**batch, "action": None, "observation.state": batch["observation.state"] / state_scale}

    def after(action: Tensor) -> Tensor:
        assert action.ndim == 2, "[batch, D]"
        return action * action_scale

    return before, after
