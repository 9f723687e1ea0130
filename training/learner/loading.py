"""The models that a learner works with. Where a sharding can hand weights out, rank 0 alone reads the folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from configs.models import ModelConfig
from configs.training import LearnerConfig
from deployments.storage.atomic import written_whole
from deployments.storage.vision import Vision
from training.learner.architecture import UnknownArchitecture, attention, check_model
from training.learner.policy import Policy


@dataclass(frozen=True)
class Loaded:
    """A policy, whole on every rank; or, with `weights`, an empty one that its sharding cuts before it fills it."""

    policy: Policy
    weights: dict[str, Tensor] | None = None  # all of them on rank 0, in its main memory; {} on the others


@dataclass(frozen=True)
class Loader:
    """Loads the folder's model once for each call; with several ranks every call is a collective."""

    folder: str | Path
    model: ModelConfig
    learner: LearnerConfig
    as_policy: Callable[[Any], Policy]
    device: torch.device
    rank: int
    world: int

    @property
    def cuts(self) -> bool:
        """Whether what is loaded is to be cut over the ranks."""
        return self.world > 1 and self.learner.sharding == "fsdp2"

    @property
    def whole(self) -> bool:
        """Whether each rank has the whole model and keeps its activations: then a forward pass may be of two parts."""
        return self.learner.sharding in ("none", "ddp") and not self.model.gradient_checkpointing

    def load(self, dtype: torch.dtype, check: bool = False) -> Loaded:
        """The model with weights of `dtype`. Raises UnknownArchitecture; with `check` also for one that cannot be
        trained, on the ranks that read it. DeepSpeed and a single process read it on every rank."""
        if self.world > 1 and Vision.load(self.folder) is not None:
            raise UnknownArchitecture(
                "a vision-language model is trained by one process so far: set learner.workers to 1"
            )
        hands_out = self.cuts or (self.world > 1 and self.learner.sharding == "ddp")
        whole = self._policy(self._read(dtype)) if self.rank == 0 or not hands_out else None
        if whole is not None and check:
            check_model(whole)
        if whole is not None and not hands_out:
            return Loaded(whole.to(self.device))
        if self.learner.sharding == "ddp":
            return Loaded(_broadcast(_filled(whole or self._policy(self._empty(dtype)), self.device)))
        empty = self._policy(self._empty(dtype))
        if whole is None:
            return Loaded(empty, {})
        empty.model.generation_config = whole.model.generation_config
        return Loaded(empty, whole.state_dict())

    def _policy(self, model: Any) -> Policy:
        if self.model.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        return self.as_policy(model)

    def _read(self, dtype: torch.dtype) -> Any:
        kernel = attention(self.folder, self.model.attn_implementation)
        return model_class(self.folder).from_pretrained(self.folder, dtype=dtype, attn_implementation=kernel)

    def _empty(self, dtype: torch.dtype) -> Any:
        """Parameters on the meta device, without memory. Buffers are computed: no file has those of positions."""
        from accelerate import init_empty_weights
        from transformers import AutoConfig

        kernel = attention(self.folder, self.model.attn_implementation)
        with init_empty_weights(include_buffers=False):
            model = model_class(self.folder).from_config(
                AutoConfig.from_pretrained(self.folder), dtype=dtype, attn_implementation=kernel
            )
        model.tie_weights()  # moving them to the meta device gave a tied head a parameter of its own
        return model


def model_class(folder: str | Path) -> Any:
    """transformers' class that loads a folder's model: one with images, or a language model."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForCausalLM if Vision.load(folder) is None else AutoModelForImageTextToText


def stored_name(model: Any, name: str) -> str:
    """How a parameter is called in the model's files, which is what vLLM knows. transformers calls those of
    vision-language models otherwise in memory; that it may also cut or join tensors is not needed for any of them."""
    if not hasattr(model.model, "language_model"):
        return name
    from transformers.core_model_loading import revert_weight_conversion

    (stored,) = revert_weight_conversion(model, {name: torch.empty(0)})
    return str(stored)


def save_as(folder: Path, model: Any, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Writes a model with these weights, and what reads texts and images for `source`, all or nothing."""
    with written_whole(folder) as staged:
        model.save_pretrained(staged, state_dict=tensors)
        save_reader(source, staged)


def save_reader(source: str | Path, folder: Path) -> None:
    """Writes the tokenizer of `source`; for a model with images its whole processor."""
    from transformers import AutoProcessor, AutoTokenizer

    reader = AutoTokenizer if Vision.load(source) is None else AutoProcessor
    reader.from_pretrained(source).save_pretrained(folder)


def fill(policy: Policy, weights: dict[str, Tensor]) -> None:
    """Gives each rank its part of rank 0's weights, tensor by tensor; a collective. The policy's parameters are cut and
    have no memory yet."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    set_model_state_dict(policy, weights, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
    policy.model.tie_weights()  # loading into parameters without memory gave each name a parameter of its own


def _filled(policy: Policy, device: torch.device) -> Policy:
    """On the device; parameters without memory get some, whatever is in it."""
    policy._apply(lambda each: torch.empty_like(each, device=device) if each.is_meta else each.to(device))
    policy.model.tie_weights()
    return policy


def _broadcast(policy: Policy) -> Policy:
    for tensor in chain(policy.parameters(), policy.buffers()):
        dist.broadcast(tensor.data, src=0)
    return policy
