"""Whether the learner scores a model as the model itself does; if not, it is refused by its architecture's name."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from configs.base import UserError
from deployments.storage.vision import Vision, VisionUnsupported
from training.learner.microbatches import Alike, Beginnings
from training.learner.policy import Policy

logger = logging.getLogger("rayward")

AGREES = 1e-4  # nats, in float32
PROBED = (2, 8)  # sequences, tokens
SMALL_VOCABULARY = 256
SPREAD = 10.0  # of the logits of random weights: near 0 a soft cap would change nothing


class UnknownArchitecture(UserError):
    """The learner cannot train this model, or would train on other log-probabilities than the model's own."""


def attention(folder: str | Path, chosen: str = "sdpa") -> str:
    """The attention kernel to load a model with, by its transformers name: the `chosen` one, but for PyTorch's, which
    leaves out a soft cap of the attention's scores without a word (Gemma 2: 0.04 nats in a tiny one)."""
    from transformers import AutoConfig

    capped = getattr(AutoConfig.from_pretrained(folder), "attn_logit_softcapping", None)
    return "eager" if capped and chosen == "sdpa" else chosen


def check_model(policy: Policy) -> None:
    """Raises UnknownArchitecture for a model that lacks a part that the learner works with, or whose own forward gives
    other log-probabilities than the policy, on a few random tokens."""
    model, name = policy.model, _name(policy)
    _check_parts(model, name)
    ids = _random_ids(policy).to(next(model.parameters()).device)
    mask = torch.ones_like(ids, dtype=torch.float32)
    mask[:, 0] = 0
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits.float()
        if policy.vision is not None:
            logits[..., list(policy.vision.special_ids)] = -torch.inf  # the sampler never draws them
        own = torch.log_softmax(logits / policy.temperature, dim=-1)
        expected = own[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
        difference = float((policy(token_ids=ids, mask=mask)[0][:, 1:] - expected).abs().max())
    if not difference <= AGREES:
        raise UnknownArchitecture(
            f"{name} cannot be trained: the learner's log-probabilities differ from the model's own by up to "
            f"{difference:.3g} nats; something that it does after its head is not in training.learner.head"
        )


def can_share(policy: Policy) -> bool:
    """Whether the model scores tokens alike when it computes only once what sequences begin with alike. One whose cache
    of keys and values does not do that computes every sequence whole."""
    ids = _random_ids(policy)
    half = ids.shape[1] // 2
    ids[:, :half] = ids[:1, :half]
    ids = ids.to(next(policy.parameters()).device)
    mask = torch.zeros_like(ids, dtype=torch.float32)
    mask[:, half + 1 :] = 1
    first = torch.zeros(len(ids), dtype=torch.int64, device=ids.device)
    with torch.no_grad():
        try:
            shared = policy(ids, mask, Beginnings(half, Alike(first[:1], first))).logp
        except Exception as error:
            logger.info("sequences are computed whole: %s has no cache that could be shared: %r", _name(policy), error)
            return False
        difference = float((shared - policy(ids, mask).logp).abs().max())
    if not difference <= AGREES:
        logger.info("sequences are computed whole: sharing changes %s by %.3g nats", _name(policy), difference)
        return False
    return True


def _random_ids(policy: Policy) -> torch.Tensor:
    """[PROBED] ids, none of which stands for an image."""
    vocabulary = torch.arange(policy.model.config.get_text_config().vocab_size)
    if policy.vision is not None:
        vocabulary = vocabulary[~torch.isin(vocabulary, torch.tensor(policy.vision.special_ids))]
    return vocabulary[torch.randint(len(vocabulary), PROBED, generator=torch.Generator().manual_seed(0))]


def _name(policy: Policy) -> str:
    return type(policy.model).__name__


def check_folder(folder: str | Path) -> None:
    """`check_model` for one layer of the folder's architecture, with random weights and a small vocabulary: takes
    seconds, before anything of a run has started. Raises UnknownArchitecture. An architecture of which no such small
    model can be made is left to the learner, which checks the whole one."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    try:
        if Vision.load(folder) is not None:
            return  # left to the learner
    except VisionUnsupported as error:
        raise UnknownArchitecture(f"{config.model_type} cannot be trained: {error}") from error
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or config.get_text_config() is not config:
        name = ", ".join(config.architectures or [config.model_type])
        raise UnknownArchitecture(f"{name} cannot be trained: it is no causal language model, or has one as a part")
    config.num_hidden_layers = 1
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:1]
    config.vocab_size, config.pad_token_id = SMALL_VOCABULARY, None
    try:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except Exception as error:
        logger.info("no small model of %s could be made to check it: %r", config.model_type, error)
        return
    _check_parts(model, type(model).__name__)
    with torch.no_grad():
        hidden = model.model(input_ids=torch.arange(8)[None], use_cache=False).last_hidden_state
        model.lm_head.weight *= SPREAD / model.lm_head(hidden).std()
    check_model(Policy(model, 1.0, 64))


def _check_parts(model: Any, name: str) -> None:
    decoder = getattr(model, "model", None)
    if not hasattr(model, "lm_head") or not hasattr(getattr(decoder, "language_model", decoder), "layers"):
        raise UnknownArchitecture(
            f"{name} cannot be trained: the learner needs a decoder `model` with `layers`, and an `lm_head`, as Qwen, "
            "Llama, Mistral, Gemma, Granite, Phi and OLMo have them"
        )
