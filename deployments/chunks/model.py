"""A small flow-matching policy: camera frames, state and prompt in, a chunk of actions out. torch.

What is observed becomes tokens (image patches, the state, the prompt's words), read by a transformer once. The action
expert, a transformer over the chunk's positions that attends to them, says where the flow from noise (at time 0) ends
at time 1; an answer follows the flow there step by step (pi0, arXiv 2410.24164; flow matching, arXiv 2210.02747). The
velocity of the flow at time t is (end - position) / (1 - t): a network that tells the end need not tell the noise, too
(arXiv 2511.13720).

Every position of the chunk has a flow time of its own: what is frozen stands at time 1 from the start, in training and
in use, so that the rest is generated to continue it (training-time real-time chunking, arXiv 2512.05964).

Dimensions: B samples, C cameras, S padded state, W words, N observed tokens, H chunk positions, A padded action.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deployments.chunks.description import ChunkDescription
from deployments.chunks.prompts import NO_WORD


@dataclass(frozen=True)
class Observed:
    """A batch of observations: `images` [B, C, H, W, 3] uint8, `image_mask` [B, C] bool, `state` [B, S] normalised and
    padded, `words` [B, W] int64."""

    images: Tensor
    image_mask: Tensor
    state: Tensor
    words: Tensor


@dataclass(frozen=True)
class Prefix:
    """What the chunk is tied to: `actions` [B, H, A] normalised, and `weights` [B, H] from 0 (free) to 1 (frozen)."""

    actions: Tensor
    weights: Tensor

    @property
    def frozen(self) -> Tensor:
        """[B, H] bool."""
        return self.weights >= 1


@dataclass(frozen=True)
class Context:
    """What the action expert is told: `now` [B, 1, width], and what it attends to, keys and values per layer
    [B, heads, N, width / heads] with `mask` [B, 1, 1, N] bool."""

    now: Tensor
    keys_values: tuple[tuple[Tensor, Tensor], ...]
    mask: Tensor


SQUEEZED = 16  # features of each patch that the scene as a whole is read from


class Linear(nn.Linear):
    """Of [B, T, in]. In use on a CPU each sample has a matrix product of its own, of the same shape whatever the size
    of the batch: one product for all is computed by another kernel for another B, with other last bits."""

    def forward(self, tokens: Tensor) -> Tensor:
        if tokens.is_cuda or torch.is_grad_enabled():
            return F.linear(tokens, self.weight, self.bias)
        batch = len(tokens)
        return torch.baddbmm(self.bias.expand(batch, 1, -1), tokens, self.weight.t().expand(batch, -1, -1))


class FlowPolicy(nn.Module):
    def __init__(self, description: ChunkDescription) -> None:
        super().__init__()
        self.description = description
        sizes, width = description.model, description.model.width
        patches = math.prod(side // sizes.patch for side in description.resolution)
        self.patch_in, self.patch_out = Linear(3 * sizes.patch**2, 2 * width), Linear(2 * width, width)
        self.look_for = Linear(width, 2 * width)
        self.squeeze = Linear(width, SQUEEZED)
        self.scene = nn.Sequential(
            Linear(description.num_cams * patches * SQUEEZED, 2 * width), nn.GELU(), Linear(2 * width, width)
        )
        self.place = nn.Parameter(torch.randn(description.num_cams, patches, width) * 0.1)
        self.state = Linear(description.max_state_dim, width)
        self.word = nn.Embedding(sizes.vocabulary, width)
        self.word_place = nn.Parameter(torch.randn(sizes.prompt_words, width) * 0.1)
        self.encoder = nn.ModuleList(EncoderBlock(width, sizes.heads) for _ in range(sizes.encoder_layers))
        self.observed_norm = nn.LayerNorm(width)
        self.action_in = nn.Sequential(
            Linear(description.max_action_dim + 2 * width, 2 * width), nn.SiLU(), Linear(2 * width, width)
        )
        self.step_place = nn.Parameter(torch.randn(description.chunk_len, width) * 0.1)
        self.expert = nn.ModuleList(ExpertBlock(width, sizes.heads) for _ in range(sizes.expert_layers))
        self.action_out = nn.Sequential(nn.LayerNorm(width), Linear(width, description.max_action_dim))

    def observe(self, observed: Observed) -> Context:
        """Once per answer, however many steps are integrated."""
        now, tokens, mask = self._tokens(observed)
        for block in self.encoder:
            tokens = block(tokens, mask)
        tokens = self.observed_norm(tokens)
        return Context(now, tuple(block.keys_values(tokens) for block in self.expert), mask)

    def _tokens(self, observed: Observed) -> tuple[Tensor, Tensor, Tensor]:
        """(now [B, 1, width], all tokens [B, N, width], mask [B, 1, 1, N])."""
        said = observed.words != NO_WORD
        words = self.word(observed.words)
        batch, patches_per_camera = len(words), self.place.shape[1]
        seen = observed.image_mask.repeat_interleave(patches_per_camera, 1)
        patches = self._look(self._patches(observed.images), words * said[:, :, None])
        now = self._now(patches * seen[:, :, None], observed.state)
        patches = patches + self.place.flatten(0, 1)
        mask = torch.cat(
            (
                seen,
                said,
                torch.ones_like(observed.image_mask[:, :1]),
            ),
            1,
        )
        return now, torch.cat((patches, words + self.word_place, now), 1), mask.view(batch, 1, 1, -1)

    def _look(self, patches: Tensor, words: Tensor) -> Tensor:
        """Patches [B, P, 3 patch^2] as tokens [B, P, width]. The prompt scales their features: the network is told what
        to look for before it looks (FiLM, arXiv 1709.07871)."""
        seen = F.gelu(self.patch_in(patches))
        looked: Tensor = self.patch_out(seen * (1 + self.look_for(words.sum(1, keepdim=True))))
        return looked

    def _now(self, patches: Tensor, state: Tensor) -> Tensor:
        """[B, 1, width]: the state, and the whole scene through weights of each place's own. Where something is can be
        read from that at once; attention learns it late."""
        scene = self.scene(self.squeeze(patches).flatten(1)[:, None])
        now: Tensor = self.state(state[:, None]) + scene
        return now

    def _patches(self, images: Tensor) -> Tensor:
        """[B, C, H, W, 3] uint8 -> [B, C patches, 3 patch^2] in [-1, 1]."""
        side = self.description.model.patch
        batch, cams, height, width, _ = images.shape
        split = images.view(batch, cams, height // side, side, width // side, side, 3).transpose(3, 4)
        flat = split.reshape(batch, -1, 3 * side * side)
        return flat.to(self.place.dtype) / 127.5 - 1.0

    def flow_end(self, context: Context, actions: Tensor, time: Tensor) -> Tensor:
        """Where the flow through noisy `actions` [B, H, A] at `time` [B, H] ends: actions [B, H, A]."""
        told = _sinusoids(time, self.description.model.width).to(actions.dtype)
        now = context.now.expand(-1, actions.shape[1], -1)
        tokens = self.action_in(torch.cat((actions, told, now), 2)) + self.step_place
        for block, keys_values in zip(self.expert, context.keys_values, strict=True):
            tokens = block(tokens, keys_values, context.mask)
        out: Tensor = self.action_out(tokens)
        return out

    def loss(self, observed: Observed, actions: Tensor, noise: Tensor, time: Tensor, delay: Tensor) -> Tensor:
        """Conditional flow matching: mean over what is not frozen of (end(x_t) - actions)^2 with
        x_t = (1 - t) noise + t actions, which is the error of the velocity times (1 - t)^2. `actions`, `noise`
        [B, H, A] normalised; `time`, `delay` [B]. Padded action dimensions do not count."""
        frozen = torch.arange(actions.shape[1], device=actions.device) < delay[:, None]
        time_H = torch.where(frozen, 1.0, time[:, None])
        mixed = torch.lerp(noise, actions, time_H[:, :, None])
        error = (self.flow_end(self.observe(observed), mixed, time_H) - actions) ** 2
        free = (~frozen)[:, :, None].to(error.dtype)
        used = error[:, :, : self.description.action_dim] * free
        return used.sum() / (free.sum() * self.description.action_dim).clamp(min=1.0)

    def sample(self, observed: Observed, noise: Tensor, steps: int, prefix: Prefix | None = None) -> Tensor:
        """A chunk [B, H, A], normalised, by Euler integration of `noise` [B, H, A] in `steps` steps.

        Frozen rows are exactly the prefix's. Rows with a weight between are drawn to it: the end that each step
        heads for is mixed with the prefix by that weight (inpainting, without the correction through the model's
        gradient of arXiv 2506.07339).
        """
        context = self.observe(observed)
        if prefix is None:
            prefix = Prefix(torch.zeros_like(noise), torch.zeros_like(noise[:, :, 0]))
        frozen, weights = prefix.frozen, prefix.weights[:, :, None].to(noise.dtype)
        actions = torch.where(frozen[:, :, None], prefix.actions, noise)
        for step in range(steps):
            time = torch.where(frozen, 1.0, step / steps)
            end = torch.lerp(self.flow_end(context, actions, time), prefix.actions, weights)
            moved = actions + (end - actions) / (steps - step)  # of the way that is left, one step's share
            actions = torch.where(frozen[:, :, None], prefix.actions, moved)
        return actions


class Attention(nn.Module):
    """Attention from [B, T, width] to keys and values [B, heads, N, width / heads]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = Linear(width, width)
        self.key_value = Linear(width, 2 * width)
        self.out = Linear(width, width)

    def keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.key_value(tokens).chunk(2, 2)
        return self._split(keys), self._split(values)

    def forward(self, tokens: Tensor, keys_values: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        mixed = F.scaled_dot_product_attention(self._split(self.query(tokens)), *keys_values, attn_mask=mask)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)


def _feed_forward(width: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), Linear(width, 4 * width), nn.GELU(), Linear(4 * width, width))


class EncoderBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward = _feed_forward(width)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        normed = self.norm(tokens)
        tokens = tokens + self.attention(normed, self.attention.keys_values(normed), mask)
        return tokens + self.feed_forward(tokens)


class ExpertBlock(nn.Module):
    """Positions of the chunk attend to each other, then to what is observed."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_norm, self.cross_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.observed = Attention(width, heads)
        self.feed_forward = _feed_forward(width)

    def keys_values(self, observed: Tensor) -> tuple[Tensor, Tensor]:
        return self.observed.keys_values(observed)

    def forward(self, tokens: Tensor, keys_values: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        normed = self.self_norm(tokens)
        tokens = tokens + self.attention(normed, self.attention.keys_values(normed), None)
        tokens = tokens + self.observed(self.cross_norm(tokens), keys_values, mask)
        return tokens + self.feed_forward(tokens)


def _sinusoids(time: Tensor, width: int) -> Tensor:
    """[...] in [0, 1] -> [..., width]: sine and cosine at wavelengths from 0.004 (as in pi0) to 4."""
    half = width // 2
    wavelengths = 0.004 * 1000.0 ** (torch.arange(half, device=time.device, dtype=torch.float32) / max(1, half - 1))
    angle = time.float()[..., None] * (2 * math.pi / wavelengths)
    return torch.cat((angle.sin(), angle.cos()), -1)
