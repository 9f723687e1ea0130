"""train_config.json: what a chunk policy takes, what it gives, and how large its model is. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from configs.base import ConfigError, Strict, YamlConfig
from configs.bc import ModelSizes
from deployments.protocol.act import ChunkShape

TRAIN_CONFIG = "train_config.json"


class MeanStd(Strict):
    """Dimensions are centred and divided by their spread."""

    kind: Literal["mean_std"] = "mean_std"
    mean: list[float] = Field(description="Mean of each dimension.")
    std: list[float] = Field(description="Standard deviation of each dimension; 0: the dimension is only centred.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} entries and std {len(self.std)}: give one per dimension")
        if any(not value >= 0 for value in self.std):
            raise ValueError("std must not be negative")
        return self

    def __len__(self) -> int:
        return len(self.mean)


class Quantiles(Strict):
    """Dimensions are mapped linearly so that [low, high] becomes [-1, 1]; what lies outside stays outside."""

    kind: Literal["quantiles"] = "quantiles"
    low: list[float] = Field(description="Low quantile of each dimension, e.g. the 1st percentile.")
    high: list[float] = Field(description="High quantile; where it equals the low one, the dimension is only centred.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.low) != len(self.high):
            raise ValueError(f"low has {len(self.low)} entries and high {len(self.high)}: give one per dimension")
        if any(not high >= low for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError("low is above high in some dimension: swap the two values")
        return self

    def __len__(self) -> int:
        return len(self.low)


VectorStatistics = Annotated[MeanStd | Quantiles, Field(discriminator="kind")]


class Statistics(Strict):
    """How the numbers of one robot were normalised for training."""

    state: VectorStatistics = Field(description="Of the robot's state; its length is the most that a state may have.")
    action: VectorStatistics = Field(description="Of the actions, one entry per action dimension.")


class ChunkDescription(YamlConfig):
    """A chunk policy, as train_config.json tells it. `resolution` is [height, width] in pixels."""

    name: str = Field("chunk policy", description="Name of the model, as answers to health checks tell it.")
    resolution: tuple[int, int] = Field((224, 224), description="Height and width of each camera's frame, in pixels.")
    num_cams: int = Field(2, ge=1, description="Cameras; a missing one is masked.")
    max_state_dim: int = Field(32, ge=1, description="Length to which a state is padded with zeros.")
    max_action_dim: int = Field(32, ge=1, description="Width of an action inside the model.")
    action_dim: int = Field(7, ge=1, description="Width of an action that is answered.")
    chunk_len: int = Field(50, ge=1, description="Actions of one answer.")
    max_delay: int = Field(8, ge=0, description="Most actions that a request may freeze.")
    model: ModelSizes = Field(default_factory=ModelSizes, description="Sizes of the network.")
    statistics: dict[str, Statistics] = Field(min_length=1, description="Normalisation statistics by name.")
    default_statistics: str | None = Field(None, description="Which statistics are meant where a request names none.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if any(side % self.model.patch or side < 1 for side in self.resolution):
            raise ValueError(f"resolution {self.resolution} must be multiples of model.patch ({self.model.patch})")
        if self.action_dim > self.max_action_dim:
            raise ValueError(f"action_dim ({self.action_dim}) is over max_action_dim ({self.max_action_dim})")
        if self.max_delay > self.chunk_len:
            raise ValueError(f"max_delay ({self.max_delay}) is over chunk_len ({self.chunk_len})")
        for name, statistics in self.statistics.items():
            if len(statistics.action) != self.action_dim:
                raise ValueError(
                    f"statistics {name!r} have {len(statistics.action)} action dimensions, action_dim is "
                    f"{self.action_dim}"
                )
            if len(statistics.state) > self.max_state_dim:
                raise ValueError(
                    f"statistics {name!r} have {len(statistics.state)} state dimensions, over max_state_dim "
                    f"({self.max_state_dim})"
                )
        if self.default_statistics is None and len(self.statistics) > 1:
            raise ValueError(f"name one of {', '.join(self.statistics)} in default_statistics")
        if self.default_statistics is not None and self.default_statistics not in self.statistics:
            raise ValueError(
                f"default_statistics {self.default_statistics!r} is none of {', '.join(self.statistics)}: name one"
            )
        return self

    @property
    def default(self) -> str:
        """The statistics that are meant where a request names none."""
        return self.default_statistics or next(iter(self.statistics))

    @property
    def shape(self) -> ChunkShape:
        """What whoever asks the policy has to know of it."""
        return ChunkShape(
            cameras=self.num_cams,
            resolution=self.resolution,
            state_dim=max(len(statistics.state) for statistics in self.statistics.values()),
            action_dim=self.action_dim,
            horizon=self.chunk_len,
            max_delay=self.max_delay,
            statistics=tuple(self.statistics),
        )


def read_description(folder: Path) -> ChunkDescription:
    """What `folder`/train_config.json says. Raises ConfigError."""
    file = folder / TRAIN_CONFIG
    try:
        data = json.loads(file.read_text())
    except FileNotFoundError:
        raise ConfigError(
            f"checkpoint folder {str(folder)!r} has no {TRAIN_CONFIG}: name a folder with {TRAIN_CONFIG} and "
            "model.safetensors, as python -m training.bc writes it"
        ) from None
    except (ValueError, OSError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{file} must hold a JSON object, but holds {type(data).__name__}")
    return ChunkDescription.parse(data, source=str(file))
