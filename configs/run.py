"""Sections of a training configuration about what surrounds the learning: weights, replicas, warm start, evaluation,
checkpoints, tracking."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from configs.base import Strict
from configs.replicas import EngineConfig, ReplicaConfig


class WeightsConfig(Strict):
    """How new weights get from the learner to the replicas."""

    transport: Literal["store", "nccl", "ipc"] = Field(
        "store",
        description="How replicas get a version: store: they fetch it from the weight store; nccl: the learner pushes "
        "it by NCCL; ipc: by CUDA IPC, when both share GPUs. Replicas that miss a push fetch from the store.",
    )
    root: str | None = Field(
        None,
        description="The weight store (a folder or a URI); None: the machine's shared memory, else the run's folder.",
    )
    keep: int = Field(
        4, ge=2, description="Number of newest versions that stay in the store; one less while a new one is written."
    )


class ServingConfig(Strict):
    """The policy replicas that this run samples from."""

    connect: str | None = Field(
        None, description="Name of a running Serve application to join; None: the run starts its own."
    )
    policy: str = Field("policy", description="Name of the policy in the Serve application.")
    engine: EngineConfig = Field(default_factory=EngineConfig, description="The vLLM engine of each replica.")
    replicas: ReplicaConfig = Field(default_factory=ReplicaConfig, description="How many replicas, and their limits.")
    http_port: int = Field(0, ge=0, le=65535, description="Port of the HTTP routes; 0: a free port.")

    @property
    def past_policy(self) -> str:
        """Name of the policy that plays with past versions in self-play."""
        return f"{self.policy}-past"


class WarmstartConfig(Strict):
    """Supervised fine-tuning on scripted demonstrations, before GRPO."""

    enabled: bool = Field(False, description="Whether a run begins with the warm start.")
    episodes: int = Field(
        2000, ge=1, description="Demonstrations that are played; more sequences than the steps need are left out."
    )
    noise: float = Field(0.3, ge=0, le=1, description="Share of the demonstrator's actions that are random.")
    illegal_noise: float = Field(
        0.0, ge=0, le=1, description="Share of its actions that may be illegal, in environments that know such actions."
    )
    steps: int = Field(300, ge=1, description="Optimiser steps.")
    batch_size: int = Field(64, ge=1, description="Sequences per optimiser step and device.")
    lr: float = Field(3e-3, gt=0, description="Highest learning rate; it falls to a tenth along a cosine.")
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay.")
    warmup_steps: int = Field(20, ge=0, description="Steps over which the learning rate rises to `lr`.")


class EvaluationConfig(Strict):
    """Episodes on held-out situations."""

    episodes: int = Field(400, ge=1, description="Episodes per evaluation, each with a seed of its own.")
    every_steps: int = Field(
        0, ge=0, description="Evaluate after every n-th training step, into metrics.jsonl; 0: only after the last one."
    )
    first_seed: int = Field(1_000_000, ge=0, description="Seed of the first episode; the others follow it.")
    temperature: float = Field(1.0, ge=0, description="Sampling temperature of evaluations; 0: greedy.")


class CheckpointConfig(Strict):
    """When the state of a run is written, so that it can be resumed."""

    every_steps: int = Field(
        50, ge=0, description="Write a checkpoint after every n-th step; 0: only after the last one."
    )
    keep: int = Field(2, ge=1, description="Number of newest checkpoints that stay.")


class TrackingConfig(Strict):
    """Where a run's metrics go. They are always written to metrics.jsonl."""

    wandb: Literal["off", "offline", "online"] = Field(
        "off", description="Weights & Biases; online needs WANDB_API_KEY in the environment."
    )
    wandb_project: str = Field("rayward", description="Project in Weights & Biases.")
    prometheus: bool = Field(True, description="Show the metrics on Ray's Prometheus endpoint, too.")
    stalled_after_s: float = Field(
        60.0, gt=0, description="Seconds without a finished step after which a warning says who waits for what."
    )
    episodes_every_steps: int = Field(
        0, ge=0, description="Write the episodes of every n-th step to Parquet; 0: never."
    )
