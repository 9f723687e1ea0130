"""Model and optimiser of one training process. Torch only: it runs without Ray."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from configs.training import AlgorithmConfig, LearnerConfig, ModelConfig, OptimizerConfig
from deployments.storage.atomic import written_whole
from training.algorithms.losses import LOSSES, LossInputs, kl_to_reference
from training.algorithms.off_policy import off_policy_weight
from training.learner.microbatches import MicroBatch, empty_like_one, microbatches
from training.learner.policy import PREFIX, Policy
from training.learner.schedule import learning_rate
from training.learner.sharding import Sharded, shard
from training.types import Batch, Sample


class Learner:
    """One rank of the learner. `update` is a whole optimiser step on this rank's share of a batch."""

    def __init__(
        self,
        model: ModelConfig,
        optimizer: OptimizerConfig,
        algorithm: AlgorithmConfig,
        learner: LearnerConfig,
        model_folder: str,
        temperature: float = 1.0,
        total_steps: int = 1,
        rank: int = 0,
        world: int = 1,
        seed: int = 0,
    ) -> None:
        random.seed(seed)
        torch.manual_seed(seed)
        self.device = torch.device("cuda", torch.cuda.current_device()) if learner.gpus_per_worker else _CPU
        self._optimizer, self._algorithm, self._learner = optimizer, algorithm, learner
        self._rank, self._world, self._total_steps = rank, world, total_steps
        self._autocast = model.dtype == "bfloat16"
        self.steps_done = 0
        self.model_folder = model_folder
        policy = self._load(model, temperature)
        self.config = policy.model.config
        self._reference = self._load(model, temperature).eval() if algorithm.kl_coef else None
        if self._reference is not None:
            self._reference.requires_grad_(False)
        self.policy = policy
        self._sharded: Sharded = shard(policy, policy.model.model.layers, optimizer, learner, world, self.device)

    def _load(self, model: ModelConfig, temperature: float) -> Policy:
        from transformers import AutoModelForCausalLM

        # float32 master weights; a bfloat16 model computes under autocast
        loaded = AutoModelForCausalLM.from_pretrained(
            self.model_folder, dtype=torch.float32, attn_implementation=model.attn_implementation
        )
        if model.gradient_checkpointing:
            loaded.gradient_checkpointing_enable({"use_reentrant": False})
        return Policy(loaded, temperature, self._learner.logprob_chunk_tokens).to(self.device)

    def update(self, batch: Batch) -> dict[str, float]:
        """Forward, loss, backward over micro-batches, clip, step. A batch without samples changes nothing but the step
        count. Returns metrics of the whole batch, equal on all ranks."""
        rows = self._rows(batch.samples)
        lr = learning_rate(self._optimizer, self.steps_done, self._total_steps)
        self.steps_done += 1
        if batch.denominators.tokens == 0:
            return {"train/lr": lr, "train/samples": 0.0, "train/tokens": 0.0}
        self.policy.train()
        behaviour = self._behaviour(rows)
        sums = torch.zeros(len(_SUMS), dtype=torch.float64)
        norm = 0.0
        for _ in range(self._algorithm.updates_per_batch):
            for index, row in enumerate(rows):
                loss, parts = self._loss(row, behaviour[index], batch)
                self._sharded.backward(loss, last=index == len(rows) - 1)
                sums += parts
            norm = self._sharded.step(lr)
        return self._metrics(sums, batch, norm, lr)

    def _rows(self, samples: tuple[Sample, ...]) -> list[MicroBatch]:
        """This rank's micro-batches; as many on every rank, since each forward is a collective for some shardings."""
        rows = microbatches(samples, self._learner.max_tokens_per_microbatch)
        if self._world > 1:
            count = torch.tensor(len(rows), device=self.device)
            dist.all_reduce(count, dist.ReduceOp.MAX)
            rows += [empty_like_one()] * (int(count) - len(rows))
        return [row.to(self.device) for row in rows]

    def _behaviour(self, rows: list[MicroBatch]) -> list[Tensor | None]:
        """The policy that ratios are taken against. One update a batch: the sampler's own log-probabilities. More: the
        learner's before the first of them, so that the clip bounds the change made here."""
        if self._algorithm.updates_per_batch == 1:
            return [None] * len(rows)
        with torch.no_grad():
            return [self._forward(row)[0] for row in rows]

    def _forward(self, row: MicroBatch) -> tuple[Tensor, Tensor]:
        autocast = torch.autocast(self.device.type, torch.bfloat16) if self._autocast else contextlib.nullcontext()
        with autocast:
            return self._sharded.forward(token_ids=row.token_ids, mask=row.mask)

    def _loss(self, row: MicroBatch, behaviour: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]:
        algorithm = self._algorithm
        logp, entropy = self._forward(row)
        weight = off_policy_weight(logp, row.sampler_logp, row.mask, algorithm)
        against = row.sampler_logp if behaviour is None else behaviour
        inputs = LossInputs(logp, against, row.advantage, row.mask, weight)
        policy_loss = LOSSES[algorithm.loss](inputs, batch.denominators, algorithm)
        entropy_sum = (entropy * row.mask).sum()
        loss = policy_loss - algorithm.entropy_coef * entropy_sum / batch.denominators.tokens
        kl = torch.zeros((), device=row.mask.device)
        if self._reference is not None:
            with torch.no_grad():
                reference_logp, _ = self._reference(token_ids=row.token_ids, mask=row.mask)
            kl = kl_to_reference(logp, reference_logp, row.mask)
            loss = loss + algorithm.kl_coef * kl / batch.denominators.tokens
        with torch.no_grad():
            difference = torch.where(row.mask > 0, logp - row.sampler_logp, 0.0)
            ratio = inputs.ratio
            outside = (ratio < 1 - algorithm.clip_low) | (ratio > 1 + algorithm.clip_high)
            parts = [policy_loss, entropy_sum, difference.abs().sum(), (outside * row.mask).sum(), kl, row.mask.sum()]
        return loss, torch.stack([part.detach().double() for part in parts]).cpu()

    def _metrics(self, sums: Tensor, batch: Batch, norm: float, lr: float) -> dict[str, float]:
        if self._world > 1:
            sums = sums.to(self.device)
            dist.all_reduce(sums)
        total = dict(zip(_SUMS, (sums / self._algorithm.updates_per_batch).tolist(), strict=True))
        tokens = max(total["tokens"], 1.0)
        return {
            "train/loss": total["loss"],
            "train/entropy": total["entropy"] / tokens,
            "train/logp_difference": total["difference"] / tokens,
            "train/clip_fraction": total["clipped"] / tokens,
            "train/kl": total["kl"] / tokens,
            "train/grad_norm": norm,
            "train/lr": lr,
            "train/samples": float(batch.denominators.sequences),
            "train/tokens": float(batch.denominators.tokens),
        }

    @torch.no_grad()
    def score(self, samples: list[Sample]) -> list[list[float]]:
        """The learner's log-probability of each chosen token, one list a sample, in the order of the samples."""
        self.policy.eval()
        scores: list[list[float]] = [[] for _ in samples]
        for row in microbatches(samples, self._learner.max_tokens_per_microbatch):
            logp, _ = self._forward(row.to(self.device))
            for values, mask, index in zip(logp.cpu(), row.mask, row.order, strict=True):
                scores[index] = values[mask.bool()].tolist()
        return scores

    def state_dict(self) -> Iterator[tuple[str, Tensor]]:
        """(Hugging Face name, whole tensor) of every parameter; a collective for sharded learners."""
        tied = bool(getattr(self.config, "tie_word_embeddings", False))
        for name, tensor in self._sharded.named_tensors():
            name = name.removeprefix(PREFIX)
            if tied and name == "lm_head.weight":
                continue
            yield name, tensor.detach()

    def save_model(self, folder: Path) -> None:
        """The policy in Hugging Face format with its tokenizer (written by rank 0; a collective)."""
        from transformers import AutoTokenizer

        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.state_dict()}
        if self._rank == 0:
            with written_whole(folder) as staged:
                self.policy.model.save_pretrained(staged, state_dict=tensors)
                AutoTokenizer.from_pretrained(self.model_folder).save_pretrained(staged)

    def save(self, folder: Path) -> None:
        """Everything the next update depends on, this rank's part: weights, optimiser, step count, RNG states."""
        rest = {
            "steps_done": self.steps_done,
            "python_rng": random.getstate(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        }
        engine = getattr(self._sharded, "engine", None)
        if engine is not None:
            engine.save_checkpoint(str(folder), tag="deepspeed")
        else:
            rest["sharded"] = self._sharded.state()
        torch.save(rest, folder / f"rank{self._rank}.pt")

    def load(self, folder: Path) -> None:
        """The exact state that `save` wrote with the same number of ranks."""
        state = torch.load(folder / f"rank{self._rank}.pt", map_location="cpu", weights_only=False)
        self.steps_done = state["steps_done"]
        engine = getattr(self._sharded, "engine", None)
        if engine is not None:
            engine.load_checkpoint(str(folder), tag="deepspeed")
        else:
            self._sharded.load(state["sharded"])
        random.setstate(state["python_rng"])
        torch.set_rng_state(state["torch_rng"])
        if state["cuda_rng"]:
            torch.cuda.set_rng_state_all(state["cuda_rng"])


_CPU = torch.device("cpu")


_SUMS = ("loss", "entropy", "difference", "clipped", "kl", "tokens")
