"""Model and optimiser of one training process. Torch only: it runs without Ray."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from configs.base import UserError
from training.algorithms.losses import LossInputs
from training.algorithms.objective import SUMS, Objective, objective
from training.algorithms.off_policy import Behaviour, Drift, behaviour, by_ratio
from training.checks.updates import UpdateRecord
from training.learner.architecture import can_share
from training.learner.audit import UNIT, Audit, mark_of
from training.learner.loading import Loader, save_as, stored_name
from training.learner.microbatches import MicroBatch, microbatches, padding_microbatch
from training.learner.pixels import PixelReader
from training.learner.policy import PREFIX, Policy, Scored
from training.learner.precision import DTYPES, check_precision
from training.learner.reference import Reference
from training.learner.schedule import learning_rate
from training.learner.settings import LearnerSettings
from training.learner.sharding import Sharded, shard
from training.types import Batch, Sample


class NotFinite(UserError):
    """Training left the finite numbers: the message says where, and what to change."""


FLASH = "flash_attention_2"


class Learner:
    """One rank of the learner. `update` takes the optimiser steps of one batch, on this rank's share of it."""

    def __init__(self, settings: LearnerSettings, rank: int = 0, world: int = 1) -> None:
        random.seed(settings.seed)
        torch.manual_seed(settings.seed)
        self.settings, self._rank, self._world = settings, rank, world
        self._algorithm, self._learner = settings.algorithm, settings.learner
        self.device = torch.device("cuda", torch.cuda.current_device()) if self._learner.gpus_per_worker else _CPU
        self.steps_done = 0
        self.updates_done = 0
        self.record: UpdateRecord | None = None  # of the newest batch that changed something
        self._skipped_in_a_row = 0
        self._stored_names: dict[str, str] = {}  # name in memory -> in the model's files
        compute = DTYPES[settings.model.dtype]
        self._pixels = PixelReader.load(settings.model_folder)
        loader = Loader(settings.model_folder, settings.model, self._learner, self._as_policy, self.device, rank, world)
        # The checks are in float32, which flash attention does not take.
        loaded = loader.load(torch.float32, check=settings.model.attn_implementation != FLASH)
        self.policy = loaded.policy
        self.config = self.policy.model.config
        may_share = loader.whole and settings.model.attn_implementation != FLASH and self._pixels is None
        self.shares_beginnings = may_share and can_share(self.policy)
        self._reference = Reference(loader, compute) if self._algorithm.kl_coef else None
        self._reference_mark = mark_of(self._reference and self._reference.policy)
        self._sharded: Sharded = shard(loaded, settings.optimizer, compute, self._learner, world, self.device)
        check_precision(self.policy, self._sharded.forward, compute, self.device)

    def _as_policy(self, model: Any) -> Policy:
        chunk = self._learner.logprob_chunk_tokens
        vision = None if self._pixels is None else self._pixels.vision
        return Policy(model, self.settings.temperature, chunk, self._algorithm.entropy_coef > 0, vision)

    def update(self, batch: Batch) -> dict[str, float]:
        """Forward, loss, backward over micro-batches, clip, step; `updates_per_batch` times. A batch without samples
        changes nothing but the step count, an update whose gradient is not finite changes nothing at all. Returns
        metrics of the whole batch, equal on all ranks, and leaves what the checks look at in `record`. Raises NotFinite
        after `max_nonfinite_steps` of those in a row.
        """
        self.record = None
        lr = learning_rate(self.settings.optimizer, self.steps_done, self.settings.total_steps)
        self.steps_done += 1
        if batch.denominators.groups == 0:
            return {"train/lr": lr, "train/episodes": float(batch.denominators.episodes), "train/tokens": 0.0}
        parts = self.microbatches(batch.samples)
        behaviours: list[Behaviour] = []
        sums, drift, audit = torch.zeros(len(SUMS), dtype=torch.float64), Drift(), Audit()
        norm, skipped, units = 0.0, 0, []
        for update in range(self._algorithm.updates_per_batch):
            for index, part in enumerate(parts):
                self._sharded.reduce_gradients(now=index == len(parts) - 1)
                scored = self._forward(part)
                first = update == 0  # no step has been taken yet: this is the policy before the batch
                if first:
                    behaviours.append(behaviour(scored.logp, part.sampler_logp, part.mask, self._algorithm))
                    drift = drift.with_tokens(scored.logp, part.sampler_logp, part.mask)
                inputs, share = self._objective(part, scored, behaviours[index], batch, first)
                if share.slopes is not None:
                    fresh = torch.tensor([self._is_fresh(batch, i) for i in part.order or (None,)], device=self.device)
                    audit.add(inputs, share.slopes, part.sampler_logp, fresh, not by_ratio(self._algorithm))
                unit = UNIT * scored.unit * part.mask.sum() / max(batch.denominators.trained_tokens, 1)
                self._sharded.backward(share.loss + unit)
                sums += share.sums
            units.append(self._sharded.unit_gradient() / UNIT)
            norm = self._sharded.step(lr)
            skipped += self._count_skipped(norm)
        return {
            **self._metrics(sums, drift, batch, audit, units),
            "train/grad_norm": norm,
            "train/skipped_updates": float(skipped),
            "train/lr": lr,
        }

    def microbatches(self, samples: tuple[Sample, ...]) -> list[MicroBatch]:
        """This rank's micro-batches; as many on every rank, since each forward is a collective for some shardings."""
        parts = self._cut(samples)
        if self._world > 1:
            count = torch.tensor(len(parts), device=self.device)
            dist.all_reduce(count, dist.ReduceOp.MAX)
            parts += [padding_microbatch()] * (int(count) - len(parts))
        return [part.to(self.device) for part in parts]

    def _cut(self, samples: Sequence[Sample]) -> list[MicroBatch]:
        budget = self._learner.max_tokens_per_microbatch
        read = self._pixels and self._pixels.fresh()
        return microbatches(samples, budget, twins=True, beginnings=self.shares_beginnings, read=read)

    def _is_fresh(self, batch: Batch, sample: int | None) -> bool:
        """Whether a sample, by its position (None: padding), was drawn with the weights that the step begins with."""
        return sample is not None and batch.samples[sample].weight_version == batch.version

    def _forward(self, part: MicroBatch) -> Scored:
        scored = self._sharded.forward(**self._inputs(part))
        return Scored(part.of_each(scored.logp), part.of_each(scored.entropy), scored.unit)

    def _inputs(self, part: MicroBatch) -> dict[str, Any]:
        token_ids, mask = part.distinct()
        pixels = part.pixels and part.pixels.to(self.device)
        return {"token_ids": token_ids, "mask": mask, "beginnings": part.beginnings, "pixels": pixels}

    def _objective(
        self, part: MicroBatch, scored: Scored, before: Behaviour, batch: Batch, first: bool
    ) -> tuple[LossInputs, Objective]:
        reference_logp = None
        if self._reference is not None:
            reference_logp = part.of_each(self._reference.logp(**self._inputs(part)))
        inputs = LossInputs(scored.logp, before.logp, part.advantage, part.mask, before.weight)
        return inputs, objective(
            inputs, scored.entropy, reference_logp, batch.denominators, self._algorithm, slopes=first
        )

    def _count_skipped(self, norm: float) -> bool:
        """Whether the update with this gradient norm was skipped. Norm and answer are equal on all ranks."""
        if math.isfinite(norm):
            self._skipped_in_a_row = 0
            self.updates_done += 1
            return False
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= self._learner.max_nonfinite_steps:
            raise NotFinite(
                f"the gradient was not finite in {self._skipped_in_a_row} updates in a row (norm {norm}); none of them "
                "changed the weights. Lower optimizer.lr, or resume from an earlier checkpoint; "
                "learner.max_nonfinite_steps allows more of them"
            )
        return True

    def _metrics(self, sums: Tensor, drift: Drift, batch: Batch, audit: Audit, units: list[float]) -> dict[str, float]:
        """Per token and update; the difference to the sampler from before the first update."""
        largest = torch.tensor([drift.largest, audit.largest], dtype=torch.float64)
        moved = float(self._reference_mark != mark_of(self._reference and self._reference.policy))
        sums = torch.cat([sums, torch.tensor([drift.total, moved], dtype=torch.float64), audit.sums])
        if self._world > 1:
            sums, largest = sums.to(self.device), largest.to(self.device)
            dist.all_reduce(sums)
            dist.all_reduce(largest, dist.ReduceOp.MAX)
        values = sums.tolist()
        total = dict(zip(SUMS, values, strict=False))
        difference, moved, *audited = values[len(SUMS) :]
        tokens = max(total["tokens"], 1.0)
        trained = tokens / self._algorithm.updates_per_batch
        self.record = audit.record(
            audited,
            float(largest[1]),
            tokens=total["tokens"] / self._algorithm.updates_per_batch,
            expected_tokens=batch.denominators.trained_tokens,
            unit_gradients=tuple(units),
            reference_moved=moved > 0,
            optimizer_steps=self._sharded.steps_taken(),
            updates=self.updates_done,
        )
        return {
            "train/loss": total["loss"] / self._algorithm.updates_per_batch,
            "train/entropy": total["entropy"] / tokens,
            "train/logp_difference": difference / trained,
            "train/logp_difference_max": float(largest[0]),
            "train/clip_fraction": total["clipped"] / tokens,
            "train/bounded_tokens_total": total["bounded"],
            "train/kl": total["kl"] / tokens,
            "train/episodes": float(batch.denominators.episodes),
            "train/tokens": trained,
        }

    @torch.no_grad()
    def score(self, samples: list[Sample]) -> list[list[float]]:
        """The learner's log-probability of each chosen token, one list a sample, in the order of the samples."""
        return self.score_with_entropy(samples)[0]

    @torch.no_grad()
    def score_with_entropy(self, samples: list[Sample]) -> tuple[list[list[float]], list[list[float]]]:
        """Log-probability of each chosen token, and the entropy of what it was chosen from, in nats."""
        scores: list[list[float]] = [[] for _ in samples]
        entropies: list[list[float]] = [[] for _ in samples]
        for part in self._cut(samples):
            scored = self._forward(part.to(self.device))
            rows = zip(scored.logp.cpu(), scored.entropy.cpu(), part.mask, part.order, strict=True)
            for logp, entropy, mask, index in rows:
                scores[index] = logp[mask.bool()].tolist()
                entropies[index] = entropy[mask.bool()].tolist()
        return scores, entropies

    def state_dict(self) -> Iterator[tuple[str, Tensor]]:
        """(name in the model's files, whole tensor) of every parameter; a collective for sharded learners. Raises
        NotFinite rather than hand out a tensor with NaN or inf: nothing of the kind is published or saved as a model.
        """
        for name, tensor in self._tensors():
            if name not in self._stored_names:
                self._stored_names[name] = stored_name(self.policy.model, name)
            yield self._stored_names[name], tensor

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """As `state_dict`, with the names that the model has in memory."""
        tied = bool(getattr(self.config, "tie_word_embeddings", False))
        for name, tensor in self._sharded.named_tensors():
            if not name.startswith(PREFIX):
                continue  # the policy's own
            name = name.removeprefix(PREFIX)
            if tied and name == "lm_head.weight":
                continue
            if not bool(tensor.isfinite().all()):
                raise NotFinite(
                    f"{name} holds NaN or inf: these weights are not published. Resume from an earlier checkpoint with "
                    "a lower optimizer.lr"
                )
            yield name, tensor.detach()

    def save_model(self, folder: Path) -> None:
        """The policy in Hugging Face format with its tokenizer; a collective. Rank 0 keeps the tensors and writes them;
        another rank takes part in gathering each, and drops it."""
        tensors: dict[str, Tensor] = {}
        for name, tensor in self._tensors():
            if self._rank == 0:
                tensors[name] = tensor.cpu().contiguous()
        if self._rank == 0:
            save_as(folder, self.policy.model, tensors, self.settings.model_folder)

    def save(self, folder: Path) -> None:
        """Everything the next update depends on, this rank's part: weights, optimiser, step count, RNG states."""
        self._sharded.save(folder, self._rank)
        rest = {
            "steps_done": self.steps_done,
            "updates_done": self.updates_done,
            "skipped_in_a_row": self._skipped_in_a_row,
            "python_rng": random.getstate(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        }
        torch.save(rest, folder / f"rank{self._rank}.pt")

    def load(self, folder: Path) -> None:
        """The exact state that `save` wrote with the same number of ranks."""
        self._sharded.load(folder, self._rank)
        rest = torch.load(folder / f"rank{self._rank}.pt", map_location="cpu", weights_only=False)
        self.steps_done = rest["steps_done"]
        self.updates_done = rest["updates_done"]
        self._skipped_in_a_row = rest["skipped_in_a_row"]
        random.setstate(rest["python_rng"])
        torch.set_rng_state(rest["torch_rng"])
        if rest["cuda_rng"]:
            torch.cuda.set_rng_state_all(rest["cuda_rng"])


_CPU = torch.device("cpu")
