"""How much of this machine's memory a command will need, told before it starts anything. Pure, from the configuration.

The constants are proportional set sizes (memory that processes share is counted once) of the processes of a run with a
model of half a million parameters on two CPU cores, without weights and caches, which are added from the configuration.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from configs.models import SMOLLM2, TINY, TinyModel
from configs.policies import ChunkPolicy, PolicyConfig, ProviderPolicy
from configs.serving import ServeConfig
from configs.training import TrainConfig
from deployments.storage.owned import SHARED_MEMORY
from deployments.storage.tensors import DTYPE_BYTES, weight_bytes
from deployments.weights.space import GIB, needed_bytes
from training.cluster.errors import ClusterError
from training.cluster.machine import available_bytes
from training.cluster.placement import engine_dtype

ENGINE = int(0.8 * GIB)
REPLICA = int(0.5 * GIB)
LEARNER = int(0.6 * GIB)
ROLLOUT_WORKER = int(0.3 * GIB)
COORDINATOR = int(0.1 * GIB)
RAY_TRAIN = int(0.9 * GIB)  # its controller and five helper actors
RAY = int(0.4 * GIB)  # control store, raylet, agents, monitors
SERVE = int(0.55 * GIB)  # controller, proxy, HAProxy's manager, ingress
DRIVER = int(0.55 * GIB)

MADE_ON_THE_SPOT = "tiny:"  # models of a megabyte or two
LEARNER_BYTES_PER_PARAMETER = 16  # float32: weights, gradients, Adam's two moments
LOGITS_COPIES = 2  # of a chunk, float32: before and after a scale or a cap; the gradient takes the place of the latter


@dataclass(frozen=True)
class ModelSize:
    """What the memory of a model follows from. All 0 for a model that is not on this machine yet."""

    parameters: int
    hidden: int = 0
    intermediate: int = 0
    layers: int = 0
    vocabulary: int = 0

    @classmethod
    def of_tiny(cls, tiny: TinyModel) -> ModelSize:
        """Untied embeddings, grouped-query attention, gated feed-forward."""
        hidden, head = tiny.hidden_size, tiny.hidden_size // tiny.heads
        attention = 2 * hidden * hidden + 2 * hidden * tiny.kv_heads * head
        layer = attention + 3 * hidden * tiny.intermediate_size
        parameters = 2 * tiny.vocab_size * hidden + tiny.layers * layer
        if tiny.vision is not None:
            seen, patch = tiny.vision.embed_dim, 3 * 2 * tiny.vision.patch**2
            merged = 4 * seen
            parameters += patch * seen + tiny.vision.depth * 8 * seen * seen + merged * (merged + hidden)
        return cls(parameters, hidden, tiny.intermediate_size, tiny.layers, tiny.vocab_size)

    @classmethod
    def of_folder(cls, folder: Path) -> ModelSize:
        if not (folder / "config.json").is_file():
            return cls(0)
        found = json.loads((folder / "config.json").read_text())
        text = found.get("text_config") or found
        keys = ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size")
        sizes = [int(text.get(key) or 0) for key in keys]
        return cls(weight_bytes(folder, "float32") // 4, *sizes)


OF_SMOLLM2 = ModelSize(134_515_008, hidden=576, intermediate=1536, layers=30, vocabulary=49_152)


@dataclass(frozen=True)
class Part:
    """Processes of one kind, or a store in shared memory."""

    name: str
    count: int
    each_bytes: int


@dataclass(frozen=True)
class Estimate:
    """`unknown`: models that are not on this machine yet, whose weights are not counted."""

    parts: tuple[Part, ...]
    unknown: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int:
        return sum(part.count * part.each_bytes for part in self.parts)

    def __str__(self) -> str:
        shown = [
            f"{part.name} {f'{part.count} x ' if part.count > 1 else ''}{part.each_bytes / GIB:.1f}"
            for part in sorted(self.parts, key=lambda part: -part.count * part.each_bytes)
        ]
        left_out = f", without the weights of {', '.join(self.unknown)}" if self.unknown else ""
        return f"{self.total_bytes / GIB:.1f} GiB ({', '.join(shown)}{left_out})"


def of_training(config: TrainConfig, model: Path | None = None, learns: bool = True) -> Estimate:
    """A run with its replicas at their fewest, on one machine. `model`: the folder that it starts from, None for the
    one that the configuration names. `learns` False: an evaluation, without a learner."""
    size = model_size(config, model)
    parts = [Part("Ray", 1, RAY), Part("command", 1, DRIVER), Part("coordinator", 1, COORDINATOR)]
    parts.append(Part("rollout worker", config.rollout.workers, ROLLOUT_WORKER))
    if config.serving.connect is None:
        policy = PolicyConfig(model="", engine=config.serving.engine, replicas=config.serving.replicas)
        parts += [*_of_policy(policy, size), Part("Ray Serve", 1, SERVE)]
        if config.self_play.past_share:
            alone = policy.replicas.model_copy(update={"min_replicas": 1, "max_replicas": 1})
            past = _of_policy(policy.model_copy(update={"replicas": alone}), size)
            parts += [replace(part, name=f"{part.name} of past versions") for part in past]
    if learns:
        parts += [
            Part("learner", config.learner.workers, LEARNER + _learner_bytes(config, size)),
            Part("Ray Train", 1, RAY_TRAIN),
        ]
    version = size.parameters * DTYPE_BYTES[config.model.dtype]
    root = config.weights.root or str(SHARED_MEMORY)
    if Path(root).is_relative_to(SHARED_MEMORY):
        stored = needed_bytes(version, config.weights.keep, config.serving.replicas.max_replicas)
        parts.append(Part("weight versions in shared memory", 1, stored))
    return Estimate(tuple(parts), () if size.parameters else (config.model.source,))


def of_sweep(config: TrainConfig, concurrency: int) -> Estimate:
    """`concurrency` runs at once, on one Ray with one Serve."""
    one = of_training(config)
    shared = ("Ray", "command", "Ray Serve")
    parts = [part if part.name in shared else replace(part, count=part.count * concurrency) for part in one.parts]
    return replace(one, parts=tuple(parts))


def of_serving(config: ServeConfig) -> Estimate:
    parts, unknown = [Part("Ray", 1, RAY), Part("command", 1, DRIVER), Part("Ray Serve", 1, SERVE)], []
    for policy in config.policies:
        if not isinstance(policy, PolicyConfig):
            parts.append(_of_other_policy(policy))
            continue
        size = ModelSize.of_folder(Path(policy.model).expanduser())
        parts += _of_policy(policy, size)
        unknown += [] if size.parameters or policy.model.startswith(MADE_ON_THE_SPOT) else [policy.model]
    return Estimate(tuple(parts), tuple(dict.fromkeys(unknown)))


def check(estimate: Estimate, available: int | None = None) -> None:
    """Raises ClusterError when the machine has less memory than that. `available`: bytes, None for what is free now."""
    free = available_bytes() if available is None else available
    if free is None or estimate.total_bytes <= free:
        return
    raise ClusterError(
        f"this needs about {estimate}, but {free / GIB:.1f} GiB are available: end other programs, or take less with "
        "serving.engine.cpu_kv_cache_gib, learner.max_tokens_per_microbatch, weights.keep or a smaller model; "
        "check_memory: false starts it anyway"
    )


def model_size(config: TrainConfig, model: Path | None = None) -> ModelSize:
    if model is not None and model.is_dir():
        return ModelSize.of_folder(model)
    if config.model.source == TINY:
        return ModelSize.of_tiny(config.model.tiny)
    if config.model.source == SMOLLM2:
        return OF_SMOLLM2
    return ModelSize.of_folder(Path(config.model.source).expanduser())


def _of_policy(policy: PolicyConfig, size: ModelSize) -> Sequence[Part]:
    """On a GPU, weights and cache are not in this memory."""
    from deployments.engines.vllm.settings import on_gpu

    engine, count = policy.engine, max(policy.replicas.min_replicas, 1)
    if on_gpu(engine):
        return [Part("replica", count, REPLICA), Part("engine", count * engine.gpus, ENGINE)]
    weights = size.parameters * DTYPE_BYTES[engine_dtype(engine)]
    each = ENGINE + weights + int(engine.cpu_kv_cache_gib * GIB)
    return [Part("replica", count, REPLICA), Part("engine", count, each)]


def _of_other_policy(policy: ChunkPolicy | ProviderPolicy) -> Part:
    """A replica that runs its model itself (weights in memory, and once more as they are loaded), or none at all."""
    weights = 0
    if isinstance(policy, ChunkPolicy):
        file = Path(policy.checkpoint).expanduser() / "model.safetensors"
        weights = 2 * file.stat().st_size if file.is_file() else 0
    return Part("replica", max(policy.replicas.min_replicas, 1), REPLICA + weights)


def _learner_bytes(config: TrainConfig, size: ModelSize) -> int:
    """Of one rank: the model's state, and the activations and logits of one micro-batch. On a GPU only the weights,
    which are loaded through this memory."""
    learner = config.learner
    if learner.gpus_per_worker:
        return size.parameters * 4
    shards = learner.workers if learner.sharding in ("fsdp2", "deepspeed") else 1
    state = math.ceil(size.parameters * LEARNER_BYTES_PER_PARAMETER / shards)
    reference = size.parameters * 4 if config.algorithm.kl_coef else 0
    layers = 1 if config.model.gradient_checkpointing else size.layers
    width = 8 * size.hidden + 4 * size.intermediate  # values that a layer keeps for the backward pass, per token
    activations = learner.max_tokens_per_microbatch * layers * width * 4
    chunk = min(learner.logprob_chunk_tokens, learner.max_tokens_per_microbatch)
    logits = chunk * size.vocabulary * 4 * LOGITS_COPIES
    return state + reference + activations + logits
