"""Schema of behaviour cloning: a chunk policy that learns a robot's task from a scripted expert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from configs.base import Strict, YamlConfig


class ModelSizes(Strict):
    """Sizes of a chunk policy's network."""

    width: int = Field(96, ge=8, description="Width of all tokens.")
    heads: int = Field(4, ge=1, description="Attention heads; they share the width.")
    encoder_layers: int = Field(2, ge=1, description="Transformer layers over what is observed.")
    expert_layers: int = Field(3, ge=1, description="Transformer layers over the chunk's actions.")
    patch: int = Field(8, ge=1, description="Side of the square image patches that become a token, in pixels.")
    prompt_words: int = Field(16, ge=1, description="Words of a prompt that are read; the rest is cut.")
    vocabulary: int = Field(1024, ge=2, description="Entries of the table into which words are hashed.")

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % (2 * self.heads):
            raise ValueError(f"width ({self.width}) must be a multiple of twice the heads ({self.heads})")
        return self


class ReachTable(Strict):
    """The reaching task: a gripper, coloured objects, a camera above them."""

    kind: Literal["reach"] = Field("reach", description="The task: reach, on a flat table without physics.")
    side: int = Field(32, ge=8, description="Side of the camera's square picture, in pixels.")
    objects: int = Field(2, ge=1, le=4, description="Objects on the table; the instruction names one by its colour.")
    tolerance: float = Field(0.1, gt=0, description="Distance from the object that counts; the table is 2 wide.")
    hold_steps: int = Field(5, ge=1, description="Steps that the gripper must stay there.")
    max_steps: int = Field(60, ge=1, description="Steps after which an episode has failed.")


class ArmTable(Strict):
    """The arm in MuJoCo: cubes and a bowl on a table."""

    kind: Literal["arm"] = Field("arm", description="The task: arm, a robot arm in MuJoCo (rayward[robots]).")
    task: Literal["reach", "pick", "place", "mixed"] = Field(
        "reach", description="What is asked for; mixed: the seed decides."
    )
    state: Literal["proprio", "estimated"] = Field(
        "estimated",
        description="What the policy is told besides the picture; proprio: the arm's own 8 numbers; estimated: also "
        "where the named cube and the bowl are, 16 numbers.",
    )
    side: int = Field(16, ge=16, le=1024, description="Side of the camera's square picture, in pixels.")
    max_steps: int | None = Field(
        None, ge=1, description="Steps after which an episode has failed; None: 40 to reach, 60 to pick, 100 to place."
    )


def _kind(table: Any) -> str | None:
    """The table's `kind`, which may be left out for reach; None for what is no table."""
    if isinstance(table, dict):
        return str(table.get("kind", "reach"))
    return getattr(table, "kind", None)


AnyTable = Annotated[
    Annotated[ReachTable, Tag("reach")] | Annotated[ArmTable, Tag("arm")],
    Discriminator(_kind),
]


class DemonstrationConfig(Strict):
    """What the scripted expert shows."""

    episodes: int = Field(3000, ge=1, description="Episodes, each on a table of its own.")
    keep_every: int = Field(3, ge=1, description="Of an episode every such step is kept: neighbours look alike.")
    noise: float = Field(
        0.15,
        ge=0,
        description="Spread of what is added to the expert's actions, so that it shows how to come back; of the arm's, "
        "in halves of an action's range.",
    )
    dataset: Path | None = Field(
        None,
        description="A LeRobotDataset that `rayward export` wrote with the same table: its episodes, not new ones.",
    )


class ChunkTraining(Strict):
    """The optimiser: AdamW, with a warm-up and a cosine to a tenth of the rate."""

    steps: int = Field(1500, ge=1, description="Updates.")
    batch_size: int = Field(128, ge=1, description="Observations of an update.")
    lr: float = Field(1e-3, gt=0, description="Highest learning rate.")
    warmup_steps: int = Field(50, ge=0, description="Updates over which the learning rate rises.")
    weight_decay: float = Field(1e-4, ge=0, description="Decay of the weights.")
    max_grad_norm: float = Field(1.0, gt=0, description="Length to which a gradient is cut.")


class ClosedLoopConfig(Strict):
    """How the policy is tried out, before and after training."""

    episodes: int = Field(100, ge=1, description="Episodes on tables that no demonstration showed.")
    first_seed: int = Field(0, description="Seed of the first one; the others follow.")
    execute_steps: int = Field(8, ge=1, description="Actions of a chunk that are executed before another is asked for.")
    flow_steps: int = Field(10, ge=1, description="Integration steps from noise to actions.")


class BCConfig(YamlConfig):
    """Behaviour cloning of a chunk policy: `python -m training.bc --config configs/bc/NAME.yaml`."""

    seed: int = Field(0, description="Seed of demonstrations, weights and updates.")
    output: Path = Field(Path("models/reach"), description="Checkpoint folder that is written.")
    table: AnyTable = Field(default_factory=ReachTable, description="The task.")
    demonstrations: DemonstrationConfig = Field(
        default_factory=DemonstrationConfig, description="What the scripted expert shows."
    )
    chunk_len: int = Field(16, ge=1, description="Actions of one answer.")
    max_delay: int = Field(
        6, ge=0, description="Most actions that a request may freeze; training freezes 0 to this many."
    )
    model: ModelSizes = Field(default_factory=ModelSizes, description="Sizes of the network.")
    training: ChunkTraining = Field(default_factory=ChunkTraining, description="The optimiser.")
    evaluation: ClosedLoopConfig = Field(default_factory=ClosedLoopConfig, description="How the policy is tried out.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_delay >= self.chunk_len:
            raise ValueError(f"max_delay ({self.max_delay}) must be below chunk_len ({self.chunk_len})")
        if self.evaluation.execute_steps > self.chunk_len:
            raise ValueError(
                f"evaluation.execute_steps ({self.evaluation.execute_steps}) is over chunk_len ({self.chunk_len})"
            )
        if self.table.side % self.model.patch:
            raise ValueError(f"table.side ({self.table.side}) must be a multiple of model.patch ({self.model.patch})")
        return self
