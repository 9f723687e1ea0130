"""Schema of a sweep: one training configuration, what varies, and how trials are chosen and stopped."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from configs.base import Strict, YamlConfig


class Dimension(Strict):
    """How one setting varies; exactly one of the four."""

    choice: list[Any] | None = Field(None, min_length=1, description="one of these, at random")
    grid: list[Any] | None = Field(None, min_length=1, description="each of these, times the other grids")
    uniform: tuple[float, float] | None = Field(None, description="[low, high)")
    loguniform: tuple[float, float] | None = Field(None, description="[low, high), uniform in the logarithm")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [name for name in ("choice", "grid", "uniform", "loguniform") if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError(f"give exactly one of choice, grid, uniform, loguniform; got {', '.join(kinds) or 'none'}")
        span = self.uniform or self.loguniform
        if span and not span[0] < span[1]:
            raise ValueError(f"the lower bound {span[0]:g} must be below the upper bound {span[1]:g}")
        if self.loguniform and self.loguniform[0] <= 0:
            raise ValueError("loguniform needs a lower bound above 0")
        return self

    @property
    def extremes(self) -> list[Any]:
        """Values that must all fit the schema of a training run."""
        return list(self.choice or self.grid or self.uniform or self.loguniform or ())


class SweepConfig(YamlConfig):
    """Ray Tune over whole training runs, with ASHA (arXiv 1810.05934) on the evaluation's result."""

    name: str = "sweep"
    train: str = Field(description="training configuration that every trial starts from")
    overrides: list[str] = Field(default_factory=list, description="a.b=value, for all trials")
    space: dict[str, Dimension] = Field(min_length=1, description="setting (a.b) -> how it varies")
    metric: str = Field("eval/success", description="eval/success or eval/return, measured on held-out situations")
    mode: str = Field("max", pattern="^(max|min)$")
    samples: int = Field(4, ge=1, description="draws; each runs the whole grid, where there is one")
    max_concurrent: int = Field(1, ge=1, description="trials at once; each has a Serve application of its own")
    evaluate_every_steps: int = Field(25, ge=1, description="how often a trial reports, and may be stopped")
    grace_steps: int = Field(25, ge=1, description="no trial is stopped before")
    reduction_factor: float = Field(3.0, gt=1, description="one of so many goes on at each rung")
    seed: int = 0

    @model_validator(mode="after")
    def _measured(self) -> Self:
        if self.metric not in ("eval/success", "eval/return"):
            raise ValueError(f"metric {self.metric!r} is not measured: use eval/success or eval/return")
        return self
