"""The engine of LeRobot's policies: batches across clients, in one thread, in an environment that has LeRobot."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.base import ConfigError
from configs.policies import ChunkPolicy
from deployments.engines.base import DeviceStatus
from deployments.engines.chunks.batched import BatchedEngine, torch_device
from deployments.engines.lerobot.policy import LeRobotPredictor
from deployments.errors import PolicyError
from deployments.protocol.act import Actions, ChunkRequest, ChunkShape

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True, slots=True)
class LeRobotDescription:
    """What is known of a policy. `name`: its class, as LeRobot calls it."""

    name: str
    shape: ChunkShape


class LeRobotEngine(BatchedEngine):
    """A `ChunkEngine`. Owner: a replica. Its weights are those of the folder for as long as it runs."""

    @property
    def description(self) -> LeRobotDescription:
        return LeRobotDescription(f"lerobot {self._predictor.policy.kind}", self._predictor.shape)

    async def load(self) -> None:
        """Raises ConfigError: no usable folder, no LeRobot, settings that only our own policies have, or no GPU where
        one is asked for."""
        _check_settings(self._config)
        self._predictor = await self._batches.between_passes(self._loaded)
        policy = self._predictor.policy
        logger.info("lerobot policy %s takes the cameras %s, in this order", policy.kind, ", ".join(policy.cameras))
        if policy.observations > 1:
            logger.warning(
                "the policy looks at its last %d observations; it is shown the newest one so many times",
                policy.observations,
            )

    def _loaded(self) -> LeRobotPredictor:
        folder = Path(self._config.checkpoint)
        try:
            import torch
        except ImportError as error:
            raise ConfigError(f"the environment of the replica has no torch, which LeRobot needs: {error}") from error
        wanted, cuda = self._config.device, torch.cuda.is_available()
        if wanted == "gpu" and not cuda:
            raise ConfigError("device is gpu, but torch sees no GPU here: set device to auto or cpu")
        predictor = LeRobotPredictor(folder, "cuda" if cuda and wanted != "cpu" else "cpu")
        if self._config.warmup:
            predictor([predictor.blank_request()] * self._config.max_batch)
        return predictor

    def _check(self, request: ChunkRequest) -> None:
        self._predictor.check(request)

    def _predicted(self, requests: Sequence[ChunkRequest]) -> list[Actions]:
        return self._predictor(requests)

    def _failed(self, error: BaseException) -> None:
        """After an error on the device no later pass can be trusted, and most fail."""
        import torch

        if isinstance(error, getattr(torch, "AcceleratorError", ())):  # older ones have no name for it
            self._breaker.trip(f"the device failed in a forward pass: {error!r}")

    async def update(self, folder: Path, version: int) -> None:
        raise PolicyError("stale_weights", "a LeRobot policy takes up no versions: start it again with the new folder")

    def device(self) -> DeviceStatus:
        return torch_device(self._predictor.device)


def _check_settings(config: ChunkPolicy) -> None:
    """Raises ConfigError for settings that would have no effect."""
    unfit = {
        "weights_root": config.weights_root is not None,
        "compile": config.compile,
        "dtype": config.dtype != "float32",
    }
    named = [name for name, is_set in unfit.items() if is_set]
    if named:
        raise ConfigError(
            f"policy {config.name!r} is one of LeRobot's, which {', '.join(named)} does not apply to: leave it out"
        )
