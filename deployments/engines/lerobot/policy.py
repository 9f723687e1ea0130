"""One LeRobot policy with its processors: requests in, chunks of actions in the robot's own units out.

Written against LeRobot 0.4.4 and read against 0.6.1. LeRobot and torch are those of the replica's own environment, and
are imported when a policy is loaded.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.base import ConfigError
from deployments.chunks.lerobot import ACTION, STATE, read_policy
from deployments.errors import PolicyError
from deployments.protocol.act import Actions, ChunkRequest, ChunkShape

if TYPE_CHECKING:
    from torch import Tensor

IMAGES = "observation.images"  # under which LeRobot stacks the cameras of policies that look back


class LeRobotPredictor:
    """A policy on its device. Not for several threads at once.

    A request with a noise_seed is answered in a pass of its own, and always alike; what a policy draws for the others
    comes from one generator for the whole pass.
    """

    def __init__(self, folder: Path, device: str) -> None:
        """Raises ConfigError: a folder that is no LeRobot policy, no package, weights that do not fit."""
        self.policy = read_policy(folder)
        self.device = device
        self._model, self._before, self._after = _loaded(folder, device)
        horizon, action_dim = self._first_answer(folder).shape  # how long it is depends on the policy's class
        self.shape = ChunkShape(
            cameras=len(self.policy.cameras),
            resolution=self.policy.resolution,
            state_dim=self.policy.state_dim,
            action_dim=action_dim,
            horizon=horizon,
        )

    def _first_answer(self, folder: Path) -> Actions:
        try:
            return self._chunks([self.blank_request()])[0]
        except Exception as error:  # of the policy's own code
            raise ConfigError(
                f"the LeRobot policy in {str(folder)!r} ({self.policy.kind}) does not answer an observation: {error!r}"
            ) from error

    def blank_request(self) -> ChunkRequest:
        """Black frames and a state of zeros."""
        return ChunkRequest(
            request_id="blank",
            images=np.zeros((len(self.policy.cameras), *self.policy.resolution, 3), np.uint8),
            image_mask=np.ones(len(self.policy.cameras), np.bool_),
            state=np.zeros(self.policy.state_dim, np.float32),
            prompt="",
        )

    def check(self, request: ChunkRequest) -> None:
        """Raises PolicyError("invalid_request") for what the policy cannot answer: before it joins a batch."""
        expected = (self.shape.cameras, *self.shape.resolution, 3)
        if request.images.dtype != np.uint8 or request.images.shape != expected:
            raise PolicyError(
                "invalid_request",
                f"images must be uint8 {list(expected)}, got {request.images.dtype} {list(request.images.shape)}",
            )
        for place, camera in enumerate(self.policy.cameras):
            if not request.image_mask[place]:
                raise PolicyError("invalid_request", f"the policy wants image {place}, of its camera {camera}")
        if request.state.shape != (self.shape.state_dim,) or not np.isfinite(request.state).all():
            raise PolicyError(
                "invalid_request",
                f"the policy wants a state of {self.shape.state_dim} finite numbers, got {list(request.state.shape)}",
            )
        if request.committed is not None and request.committed.delay:
            raise PolicyError("invalid_request", "a LeRobot policy freezes no actions: delay must be 0")
        if request.statistics is not None:
            raise PolicyError("invalid_request", "a LeRobot policy has its own statistics: name none")

    def __call__(self, requests: Sequence[ChunkRequest]) -> list[Actions]:
        """The chunk [horizon, D] of each request, un-normalised. The requests were checked."""
        together = [request for request in requests if request.noise_seed is None]
        chunks = iter(self._chunks(together) if together else ())
        return [next(chunks) if request.noise_seed is None else self._chunks([request])[0] for request in requests]

    def _chunks(self, requests: Sequence[ChunkRequest]) -> list[Actions]:
        import torch

        seed = requests[0].noise_seed
        torch.manual_seed(secrets.randbits(63) if seed is None else seed % 2**63)
        with torch.no_grad():
            batch = dict(self._before(self._batch(requests)))
            batch.pop(ACTION, None)  # nothing, by which policies that look back would be misled
            _look_back(self._model, batch)
            normalised = self._model.predict_action_chunk(batch)
            # The processors take the actions of one step: [batch, D].
            steps = [self._after(normalised[:, step]) for step in range(normalised.shape[1])]
            actions = torch.stack(steps, dim=1).float().cpu().numpy()
        return [np.ascontiguousarray(chunk) for chunk in actions]

    def _batch(self, requests: Sequence[ChunkRequest]) -> dict[str, Any]:
        """In LeRobot's names: images [batch, 3, H, W] in 0..1, the state [batch, D], and what is to be done."""
        import torch

        batch: dict[str, Any] = {"task": [request.prompt for request in requests]}
        for place, camera in enumerate(self.policy.cameras):
            frames = torch.from_numpy(np.stack([request.images[place] for request in requests]))
            batch[camera] = frames.permute(0, 3, 1, 2).contiguous().float() / 255
        if self.policy.state_dim:
            batch[STATE] = torch.from_numpy(np.stack([request.state for request in requests]))
        return batch


def _look_back(model: Any, batch: dict[str, Tensor]) -> None:
    """Forgets the requests before, and fills the queues of a policy that looks at its last observations: with this one,
    as LeRobot does at the start of an episode. It fills them in `select_action` alone, which gives a single action."""
    import torch
    from lerobot.policies.utils import populate_queues

    model.reset()
    queues = getattr(model, "_queues", {})
    if IMAGES in queues:
        batch[IMAGES] = torch.stack([batch[camera] for camera in model.config.image_features], dim=-4)
    if IMAGES in queues or STATE in queues:
        populate_queues(queues, batch)


def _loaded(folder: Path, device: str) -> tuple[Any, Any, Any]:
    """(the policy, what stands before it, what stands behind it). Raises ConfigError."""
    try:
        from lerobot.configs.policies import PreTrainedConfig
        from lerobot.policies.factory import get_policy_class, make_pre_post_processors
    except ImportError as error:
        raise ConfigError(
            f"LeRobot cannot be imported in the replica of {str(folder)!r} ({error}): name it in the policy's "
            "runtime_env.pip, e.g. [lerobot==0.4.4], or an interpreter that has it in runtime_env.py_executable"
        ) from error
    try:
        config = PreTrainedConfig.from_pretrained(folder)
        config.device = device
        if hasattr(config, "pretrained_backbone_weights"):
            config.pretrained_backbone_weights = None  # would be fetched, and then overwritten by the checkpoint's
        # Not strict, which is LeRobot's default, leaves a tensor random that is missing.
        model = get_policy_class(config.type).from_pretrained(folder, config=config, strict=True)
        on_device = {"device_processor": {"device": device}}
        before, after = make_pre_post_processors(config, str(folder), preprocessor_overrides=on_device)
    except Exception as error:  # LeRobot's, draccus's, safetensors', and of the packages that a policy wants besides
        raise ConfigError(f"LeRobot cannot load the policy in {str(folder)!r}: {error}") from error
    return model, before, after
