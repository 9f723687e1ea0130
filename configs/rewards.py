"""Schema of the reward: how its named parts add up."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from configs.base import Strict

Weight = Annotated[float, Field(allow_inf_nan=False)]


class RewardConfig(Strict):
    """What an episode is paid for. What counts as a success is the environment's alone."""

    weights: dict[str, Weight] = Field(
        default_factory=dict,
        description="With which weights the named parts of the environment's reward add up, e.g. {solved: 1.0, format: "
        "0.2}; a part that is left out keeps the environment's own weight. Empty: the reward is the environment's own.",
    )
