"""Schema of a sweep: one training configuration, what varies, and how trials are chosen and stopped."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from configs.base import ConfigError, Strict, YamlConfig
from configs.training import TrainConfig

# What a sweep may not vary, and why. A name covers everything below it.
NOT_VARIED = {
    "steps": "ASHA compares trials of one length; set it for all of them under `settings`",
    "evaluation": "trials are compared on the same held-out situations; set it under `settings`",
    "env.eval_kwargs": "trials are compared on the same held-out situations; set it under `settings`",
    "storage_path": "all trials write below one folder; set the sweep's own storage_path",
    "serving.connect": "each trial publishes weights to replicas of its own",
    "serving.http_port": "all trials share one HTTP port and differ by route",
}


class Dimension(Strict):
    """How one setting varies; exactly one of the four."""

    choice: list[Any] | None = Field(None, min_length=1, description="Values to draw from at random.")
    grid: list[Any] | None = Field(
        None, min_length=1, description="Values that are all tried, each with every value of the other grids."
    )
    uniform: tuple[float, float] | None = Field(None, description="Bounds [low, high) of an even draw.")
    loguniform: tuple[float, float] | None = Field(
        None, description="Bounds [low, high) of a draw that is even in the logarithm."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(kinds) != 1:
            known = ", ".join(type(self).model_fields)
            raise ValueError(f"give exactly one of {known}; got {', '.join(kinds) or 'none'}")
        span = self.uniform or self.loguniform
        if span and not span[0] < span[1]:
            raise ValueError(f"the lower bound {span[0]:g} must be below the upper bound {span[1]:g}")
        if self.loguniform and self.loguniform[0] <= 0:
            raise ValueError("loguniform needs a lower bound above 0")
        return self

    @property
    def probes(self) -> list[Any]:
        """Values that must all fit the training schema: every listed one; of a span the ends and a point that is surely
        no whole number, so that a span over a count is found out before the first trial is."""
        span = self.uniform or self.loguniform
        if span:
            return [*span, span[0] + (span[1] - span[0]) / math.pi]
        return list(self.choice or self.grid or ())


class SweepConfig(YamlConfig):
    """Ray Tune over whole training runs, with ASHA (arXiv 1810.05934) on the held-out evaluation."""

    name: str = Field(
        "sweep", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Part of the names of folders and routes."
    )
    train: str = Field(description="The training configuration (YAML) that every trial starts from.")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="Laid over the training configuration in all trials, e.g. {steps: 60}."
    )
    space: dict[str, Dimension] = Field(
        min_length=1, description="For each key of the training configuration that varies (`a.b`), how it varies."
    )
    metric: Literal["eval/success", "eval/return"] = Field(
        "eval/success", description="What trials are compared by; higher is better."
    )
    trials: int = Field(
        4, ge=1, description="Number of draws from the space; with grids, each draw runs the whole grid."
    )
    concurrency: int = Field(
        1, ge=1, description="Trials that run at the same time; each has its own replicas and learner."
    )
    storage_path: str | None = Field(
        None, description="A folder for all runs; None: that of the training configuration."
    )
    report_every_steps: int = Field(
        25, ge=1, description="Steps after which a trial is evaluated and may be stopped, again and again."
    )
    grace_steps: int = Field(25, ge=1, description="Steps before which no trial is stopped.")
    reduction_factor: float = Field(3.0, gt=1, description="At each rung ASHA continues one of so many trials.")
    seed: int = Field(0, description="Seed of the draws; the seed of the runs is a training setting.")

    @field_validator("space", mode="before")
    @classmethod
    def _dotted(cls, value: Any) -> Any:
        """Sections may be nested instead of dotted: `--set space.optimizer.lr.grid=[1e-4, 1e-3]` makes such ones."""
        return dict(_leaves(value, _holds_mappings)) if isinstance(value, Mapping) else value

    @property
    def trial_count(self) -> int:
        return self.trials * math.prod(len(dimension.grid) for dimension in self.space.values() if dimension.grid)

    def resolve(self) -> TrainConfig:
        """The configuration that trials start from, after every key and extreme of the space was tried against the
        schema. Raises ConfigError; starts nothing."""
        base = TrainConfig.load(self.train, as_overrides(dict(_leaves(self.settings, _is_mapping))))
        if base.serving.connect is not None:
            raise ConfigError(f"serving.connect: {NOT_VARIED['serving.connect']}: remove it")
        for key, dimension in self.space.items():
            self._check(base, key, dimension)
        storage = self.storage_path or base.storage_path
        if "://" not in storage:
            storage = str(Path(storage).expanduser().resolve())
        return varied(base, {"storage_path": storage, "evaluation.every_steps": self.report_every_steps})

    def _check(self, base: TrainConfig, key: str, dimension: Dimension) -> None:
        for name, reason in NOT_VARIED.items():
            if key == name or key.startswith(name + "."):
                raise ConfigError(f"space: {key} cannot vary: {reason}")
        for value in dimension.probes:
            try:
                varied(base, {key: value})
            except ConfigError as error:
                whole = "whole number" in str(error) or "valid integer" in str(error)
                hint = "\nFor whole numbers use choice or grid" if whole else ""
                raise ConfigError(f"{error}{hint}") from error


def varied(base: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """`base` with each `a.b` set. Raises ConfigError that names the nearest known key."""
    return TrainConfig.parse(base.dump(), as_overrides(values), source=f"space: {', '.join(values)}")


def as_overrides(values: Mapping[str, Any]) -> list[str]:
    """Plain data in the form of `--set`.

    >>> as_overrides({"optimizer.lr": 0.5, "env.name": "key_door"})
    ['optimizer.lr=0.5', 'env.name="key_door"']
    """
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def _leaves(node: Mapping[str, Any], is_section: Callable[[Any], bool], path: str = "") -> Iterator[tuple[str, Any]]:
    """(a.b, value) of nested sections; when two give the same key, the later one counts."""
    for key, value in node.items():
        name = f"{path}.{key}" if path else str(key)
        if is_section(value):
            yield from _leaves(value, is_section, name)
        else:
            yield name, value


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value)


def _holds_mappings(value: Any) -> bool:
    """A section of the space, not a dimension: {optimizer: {lr: {...}}}, and not {grid: [...]}."""
    return _is_mapping(value) and all(isinstance(inner, Mapping) for inner in value.values())
