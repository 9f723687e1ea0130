"""Schema of a curriculum: which stages a run's situations come from, and when harder ones come."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from configs.base import Strict
from configs.rollouts import EnvConfig


class StageConfig(Strict):
    """One stage: the environment with other settings, or another environment."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$", description="Its name in metrics.")
    env: str | None = Field(
        None, description="Another environment, by a name as in env.name, with settings of its own; None: env.name."
    )
    kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the environment in this stage, laid over env.kwargs."
    )


class Mixture(Strict):
    """All stages from the first step on."""

    kind: Literal["mixture"] = Field("mixture", description="All stages at the same time.")
    weights: list[Annotated[float, Field(gt=0)]] = Field(
        default_factory=list, description="Share of each stage, in their order; empty: all alike."
    )


class BySteps(Strict):
    """One stage after the other, at given steps."""

    kind: Literal["steps"] = Field(description="One stage after the other, each from its step on.")
    starts: list[int] = Field(description="First step of each stage, in their order; the first one's is 0.")

    @model_validator(mode="after")
    def _ascend(self) -> Self:
        if self.starts[:1] != [0] or any(before >= after for before, after in pairwise(self.starts)):
            raise ValueError(f"starts must begin with 0 and rise, got {self.starts}")
        return self


class BySuccess(Strict):
    """The next stage comes when the policy succeeds often enough in the one before."""

    kind: Literal["success"] = Field(description="The next stage comes with success in the one before.")
    advance_at: float = Field(0.8, gt=0, le=1, description="Success that ends a stage.")
    window_groups: int = Field(48, ge=1, description="Success is the mean over so many groups of the stage, the last.")
    review_share: float = Field(
        0.2, ge=0, lt=1, description="Share of the groups that are played in earlier stages, so that they are kept up."
    )


def _kind(order: Any) -> str | None:
    """The order's `kind`, which may be left out for a mixture; None for what is no order."""
    if isinstance(order, dict):
        return str(order.get("kind", "mixture"))
    return getattr(order, "kind", None)


class CurriculumConfig(Strict):
    """Stages of a run's training. The evaluation is not changed: it plays env.eval_kwargs."""

    stages: list[StageConfig] = Field(min_length=2, description="The stages, the easiest first.")
    order: Annotated[
        Annotated[Mixture, Tag("mixture")] | Annotated[BySteps, Tag("steps")] | Annotated[BySuccess, Tag("success")],
        Discriminator(_kind),
    ] = Field(default_factory=lambda: Mixture(kind="mixture"), description="When which stage is played.")

    @property
    def names(self) -> list[str]:
        return [stage.name for stage in self.stages]

    def env_of(self, env: EnvConfig, name: str) -> EnvConfig:
        """The run's environment as the stage wants it. Raises StopIteration for no stage of this name."""
        stage = next(stage for stage in self.stages if stage.name == name)
        own = stage.env is not None and stage.env != env.name
        kwargs = stage.kwargs if own else {**env.kwargs, **stage.kwargs}
        return env.model_copy(update={"name": stage.env or env.name, "kwargs": kwargs})

    @model_validator(mode="after")
    def _fits(self) -> Self:
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise ValueError(f"two stages are called {min(twice)!r}: give each a name of its own")
        given = {"mixture": "weights", "steps": "starts"}.get(self.order.kind)
        numbers = getattr(self.order, given) if given else []
        if numbers and len(numbers) != len(self.stages):
            raise ValueError(
                f"order.{given} has {len(numbers)} numbers for {len(self.stages)} stages: give one for each stage"
            )
        return self
