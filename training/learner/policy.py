"""The model that the learner trains: token ids in, log-probabilities of the chosen tokens out."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import DynamicCache

from deployments.protocol.generate import NEVER
from deployments.storage.vision import Vision
from training.learner.head import logits_of
from training.learner.logprobs import chosen_logprobs
from training.learner.microbatches import Beginnings
from training.learner.pixels import Pixels

PREFIX = "model."  # of the Hugging Face model inside Policy


class Scored(NamedTuple):
    """Log-probability and entropy of the chosen tokens, [B, T] each; and the policy's `unit`, a scalar."""

    logp: Tensor
    entropy: Tensor
    unit: Tensor


class Policy(nn.Module):
    """A causal language model that answers with log-probability and entropy of the chosen tokens, [B, T] each.

    Besides the model's parameters it has `unit`, one number that nothing depends on. The learner gives it a loss whose
    gradient is known; it goes through the same backward passes and reductions as all others and shows what they do.

    It has one mode, that of the sampler: no dropout, whether it scores or trains. Under dropout the learner would be
    another policy than the one that sampled, and a different one in each forward pass.

    A vision-language model's tokens that stand for images are never chosen: their logits are lowered as the sampler
    lowers them.
    """

    def __init__(
        self, model: Any, temperature: float, chunk: int, entropy_gradient: bool = True, vision: Vision | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.chunk = chunk
        self.entropy_gradient = entropy_gradient
        self.unit = nn.Parameter(torch.zeros(1))
        self.vision = vision
        self.train()

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder's layers; a vision-language model has them in its language model."""
        decoder = self.model.model
        layers: nn.ModuleList = getattr(decoder, "language_model", decoder).layers
        return layers

    def train(self, mode: bool = True) -> Self:
        """Evaluation mode whatever is asked for. Modules that checkpoint their gradient do so in training mode only, so
        these stay in it, alone, and what they would drop themselves is set to 0."""
        super().train(False)
        for module in self.model.modules():
            if getattr(module, "gradient_checkpointing", False):
                module.training = True
                _drop_nothing(module)
        return self

    def forward(
        self, token_ids: Tensor, mask: Tensor, beginnings: Beginnings | None = None, pixels: Pixels | None = None
    ) -> Scored:
        """token_ids, mask [B, T]; `pixels`: of the images that the tokens show. With `beginnings`, within which nothing
        was chosen and the token before the first chosen one does not lie, the model's first pass is over each kind of
        them, once."""
        start = beginnings.tokens if beginnings else 0
        logp, entropy = chosen_logprobs(
            self._hidden(token_ids, beginnings) if pixels is None else self._seen(token_ids, pixels),
            self._logits,
            token_ids[:, start:],
            mask[:, start:],
            self.temperature,
            self.chunk,
            self.entropy_gradient,
        )
        return Scored(pad(logp, (start, 0)), pad(entropy, (start, 0)), self.unit.sum())

    def _logits(self, hidden: Tensor) -> Tensor:
        logits = logits_of(self.model, hidden)
        if self.vision is not None:
            logits[..., list(self.vision.special_ids)] += NEVER
        return logits

    def _seen(self, token_ids: Tensor, pixels: Pixels) -> Tensor:
        """[B, T, D] of sequences with images."""
        assert self.vision is not None
        seen = pixels.inputs(token_ids, self.vision)
        hidden: Tensor = self.model.model(input_ids=token_ids, use_cache=False, **seen).last_hidden_state
        return hidden

    def _hidden(self, token_ids: Tensor, beginnings: Beginnings | None) -> Tensor:
        """[B, T, D] without the beginnings. No attention mask: padding stands on the right, where causal attention
        never looks."""
        hidden: Tensor
        if beginnings is None:
            hidden = self.model.model(input_ids=token_ids, use_cache=False).last_hidden_state
            return hidden
        cache = DynamicCache(config=self.model.config)
        first = token_ids[beginnings.alike.examples, : beginnings.tokens]
        self.model.model(input_ids=first, past_key_values=cache, use_cache=True)
        cache.batch_select_indices(beginnings.alike.kinds)  # its keys and values keep their gradient
        rest = token_ids[:, beginnings.tokens :]
        hidden = self.model.model(input_ids=rest, past_key_values=cache, use_cache=True).last_hidden_state
        return hidden


def _drop_nothing(module: nn.Module) -> None:
    """Sets a module's own probabilities (dropout, layerdrop, ...) to 0; what is in its children is not touched."""
    for name, value in vars(module).items():
        if "drop" in name and isinstance(value, float):
            setattr(module, name, 0.0)
