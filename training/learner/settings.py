"""What a learner is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from configs.models import ModelConfig
from configs.training import AlgorithmConfig, LearnerConfig, OptimizerConfig, TrainConfig


@dataclass(frozen=True)
class LearnerSettings:
    """All that the ranks of one learner have in common."""

    model: ModelConfig
    optimizer: OptimizerConfig
    algorithm: AlgorithmConfig
    learner: LearnerConfig
    model_folder: str  # in Hugging Face format, with the tokenizer
    temperature: float = 1.0  # of the sampler: logits are divided by it
    total_steps: int = 1  # for the schedule of the learning rate
    seed: int = 0

    @classmethod
    def of(cls, config: TrainConfig, model_folder: str | Path) -> LearnerSettings:
        return cls(
            config.model,
            config.optimizer,
            config.algorithm,
            config.learner,
            str(model_folder),
            config.sampling.temperature,
            config.steps,
            config.seed,
        )
