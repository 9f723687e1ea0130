"""Which model a policy is made of."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from configs.base import Strict

TINY, SMOLLM2 = "tiny", "smollm2"  # models that `source` names without a folder


class TinyVision(Strict):
    """What the tiny model sees with: it makes a Qwen2-VL of the Qwen2."""

    patch: int = Field(
        7, ge=4, description="Side of a patch in pixels; a square of two by two patches becomes one token."
    )
    depth: int = Field(2, ge=1, description="Number of the image encoder's layers.")
    embed_dim: int = Field(64, ge=32, description="Width of the image encoder; a multiple of 32 times `heads`.")
    heads: int = Field(2, ge=1, description="Attention heads of the image encoder.")
    max_pixels: int = Field(112 * 112, ge=28 * 28, description="Larger images are scaled down to so many pixels.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.embed_dim % (32 * self.heads):
            raise ValueError(
                f"embed_dim {self.embed_dim} over {self.heads} heads: vLLM's CPU attention needs a head size that is a "
                "multiple of 32"
            )
        return self


class TinyModel(Strict):
    """A small random Qwen2 with its own tokenizer, built on the spot (no download)."""

    vision: TinyVision | None = Field(None, description="For environments with images: a Qwen2-VL instead.")

    hidden_size: int = Field(128, ge=16, description="Width of the model; a multiple of 32 times `heads`.")
    layers: int = Field(2, ge=1, description="Number of transformer layers.")
    heads: int = Field(4, ge=1, description="Number of attention heads.")
    kv_heads: int = Field(2, ge=1, description="Number of key-value heads; it divides `heads`.")
    intermediate_size: int = Field(256, ge=16, description="Width of the feed-forward layers.")
    initializer_range: float = Field(
        0.06,
        gt=0,
        description="Standard deviation of the random weights; 0.02 learned far worse in a model of this size.",
    )
    vocab_size: int = Field(
        512, ge=280, description="Upper bound of the vocabulary: 256 bytes, the special tokens, then pieces of words."
    )
    max_positions: int = Field(
        2048, ge=64, description="Longest sequence of the model, in tokens; at least serving.engine.max_model_len."
    )

    @model_validator(mode="after")
    def _servable(self) -> Self:
        if self.hidden_size % (32 * self.heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} over {self.heads} heads: vLLM's CPU attention needs a head size "
                "that is a multiple of 32"
            )
        return self


class ModelConfig(Strict):
    """Where the policy comes from, and how the learner holds it."""

    source: str = Field(
        TINY, description='"tiny", "smollm2" (`make real`), a folder in Hugging Face format, or a name on the hub.'
    )
    overrides: dict[str, str] = Field(
        default_factory=dict,
        description="Another `source` for some environments, by the environment's name, e.g. {bfcl: "
        "Salesforce/xLAM-2-3b-fc-r}. Taken in when the configuration is read: `source` is then that model, and this is "
        "empty. A `--set model.source` counts for more.",
    )
    tiny: TinyModel = Field(default_factory=TinyModel, description='The model that is built when `source` is "tiny".')
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Type in which the learner computes; its master weights are float32 in any case."
    )
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = Field(
        "sdpa",
        description="The learner's attention kernel, by its transformers name; a model whose attention scores have a "
        "soft cap, which sdpa leaves out, gets eager instead.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations again in the backward pass: less memory, more time."
    )
