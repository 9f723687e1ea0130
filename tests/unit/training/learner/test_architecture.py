"""The learner scores a model as its own forward does, whatever stands after its head; else it is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Gemma3Config, GPT2Config, Qwen2VLConfig

from training.learner import policy as policies
from training.learner.architecture import UnknownArchitecture, attention, can_share, check_folder, check_model
from training.learner.microbatches import Alike, Beginnings
from training.learner.policy import Policy

SMALL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "llama": {},
    "mistral": {},
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "final_logit_softcapping": 3.0},
    "granite": {"logits_scaling": 8.0},
    "phi": {"resid_pdrop": 0.5},
    "phi3": {},
    "olmo": {},
    "olmo2": {},
    "cohere": {"logit_scale": 0.0625},
}
AFTER_THE_HEAD = ("gemma2", "granite", "cohere")


def model(family: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SMALL, **FAMILIES[family], **changes))
    with torch.no_grad():
        made.lm_head.weight *= 50  # logits that a soft cap changes
    return made.float()


def folder(config: Any, path: Path) -> Path:
    config.save_pretrained(path)
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_the_learner_scores_as_the_models_own_forward(family: str, tmp_path: Path) -> None:
    made = model(family)
    check_model(Policy(made, 0.7, 5))
    check_folder(folder(made.config, tmp_path))


@pytest.mark.parametrize("family", AFTER_THE_HEAD)
def test_what_stands_after_the_head_and_is_not_known_is_refused_by_name(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "logits_of", lambda model, hidden: model.lm_head(hidden))
    made = model(family)
    name = type(made).__name__
    with pytest.raises(UnknownArchitecture, match=rf"{name} cannot be trained: .* by up to .* nats"):
        check_model(Policy(made, 0.7, 5))
    with pytest.raises(UnknownArchitecture, match=f"{name} cannot be trained"):
        check_folder(folder(made.config, tmp_path))


def test_a_soft_cap_in_the_attention_is_not_left_out(tmp_path: Path) -> None:
    """PyTorch's kernel leaves it out, and so the model's own forward does with it."""
    model("gemma2", initializer_range=0.5, attn_logit_softcapping=0.5).save_pretrained(tmp_path)
    assert attention(tmp_path) == "eager"
    assert attention(tmp_path, "flash_attention_2") == "flash_attention_2", "which has the cap"
    ids = torch.arange(16)[None]
    with torch.no_grad():
        right, silent, chosen = (
            AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation=kernel)(ids).logits
            for kernel in ("eager", "sdpa", attention(tmp_path))
        )
    assert float((silent - right).abs().max()) > 0.01
    assert torch.equal(chosen, right)
    plain = folder(model("qwen2").config, tmp_path / "plain")
    assert attention(plain) == "sdpa"


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (GPT2Config(n_embd=8, n_head=2, n_layer=1, vocab_size=300), "GPT2LMHeadModel cannot be trained: .*`lm_head`"),
        (Qwen2VLConfig(), r"qwen2_vl cannot be trained: .*reads images in a way that is not known"),
        (Gemma3Config(), r"gemma3 cannot be trained: .*reads images in a way that is not known"),
    ],
)
def test_a_model_of_another_shape_is_refused_before_it_is_loaded(config: Any, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownArchitecture, match=complaint):
        check_folder(folder(config, tmp_path))


def test_an_architecture_that_cannot_be_made_small_is_left_to_the_learner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ValueError("num_hidden_layers must be even")

    path = folder(model("qwen2").config, tmp_path)
    monkeypatch.setattr(AutoModelForCausalLM, "from_config", fails)
    check_folder(path)


@pytest.mark.parametrize("family", [*FAMILIES, "mistral with a window"])
def test_a_beginning_that_is_computed_once_changes_neither_scores_nor_gradients(family: str) -> None:
    name, _, window = family.partition(" with a ")
    made = model(name, **({"sliding_window": 4} if window else {}))
    policy = Policy(made, 0.7, 16)
    assert can_share(policy)
    ids = torch.randint(300, (4, 12), generator=torch.Generator().manual_seed(1))
    ids[1, :6], ids[3, :6] = ids[0, :6], ids[2, :6]
    mask = torch.zeros(4, 12)
    mask[:, 7:] = 1
    once = Beginnings(6, Alike(torch.tensor([0, 2]), torch.tensor([0, 0, 1, 1])))
    found = []
    for beginnings in (None, once):
        policy.zero_grad()
        scored = policy(ids, mask, beginnings)
        (scored.logp.sum() + scored.entropy.sum()).backward()
        found.append((scored.logp.detach(), torch.cat([p.grad.flatten() for p in made.parameters()])))
    (whole, of_whole), (shared, of_shared) = found
    assert torch.allclose(whole, shared, atol=1e-4)
    assert torch.allclose(of_whole, of_shared, atol=1e-4 * float(of_whole.abs().max()))


def test_a_model_that_scores_otherwise_after_a_cache_computes_every_sequence_whole() -> None:
    policy = Policy(model("llama"), 1.0, 16)
    plain = policy.model.model.forward

    def forgetful(**inputs: Any) -> Any:
        """A model that forgets what is in its cache."""
        return plain(**inputs | {"past_key_values": None})

    policy.model.model.forward = forgetful
    assert not can_share(policy)


def test_a_model_without_a_cache_computes_every_sequence_whole() -> None:
    policy = Policy(model("llama"), 1.0, 16)
    plain = policy.model.model.forward
    policy.model.model.forward = lambda input_ids, use_cache=False: plain(input_ids=input_ids)
    assert not can_share(policy)
