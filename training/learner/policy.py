"""The model that the learner trains: token ids in, log-probabilities of the chosen tokens out."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from training.learner.logprobs import chosen_logprobs

PREFIX = "model."  # of the Hugging Face model inside Policy


class Policy(nn.Module):
    """A causal language model that answers with log-probability and entropy of the chosen tokens, [B, T] each."""

    def __init__(self, model: Any, temperature: float, chunk: int) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.chunk = chunk

    def forward(self, token_ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        # No attention mask: padding stands on the right, where causal attention never looks.
        hidden = self.model.model(input_ids=token_ids, use_cache=False).last_hidden_state
        return chosen_logprobs(hidden, self.model.lm_head, token_ids, mask, self.temperature, self.chunk)
