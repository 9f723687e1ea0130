"""The sides of `benchmarks.learner`: each makes a function that takes one step on the same samples."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.models import ModelConfig
from configs.training import AlgorithmConfig, LearnerConfig, OptimizerConfig
from training.types import Batch, Denominators, Sample

OPTIMIZER = OptimizerConfig(lr=1e-6, warmup_steps=0)


@dataclass(frozen=True)
class Work:
    """What a step is taken on. `budget`: tokens of a micro-batch, padding included. `threads`: of PyTorch."""

    model: Path
    samples: tuple[Sample, ...]
    budget: int
    threads: int
    gpu: bool = False

    @property
    def device(self) -> str:
        return "cuda" if self.gpu else "cpu"

    @property
    def chosen(self) -> int:
        return sum(sample.chosen for sample in self.samples)


def rayward(work: Work) -> Callable[[], object]:
    """`Learner.update`, whole."""
    import torch

    from training.learner.learner import Learner
    from training.learner.settings import LearnerSettings

    torch.set_num_threads(work.threads)
    settings = LearnerSettings(
        ModelConfig(dtype="bfloat16" if work.gpu else "float32"),
        OPTIMIZER,
        AlgorithmConfig(loss="dapo"),
        LearnerConfig(max_tokens_per_microbatch=work.budget, gpus_per_worker=int(work.gpu)),
        str(work.model),
    )
    learner = Learner(settings)
    count = len(work.samples)
    batch = Batch(work.samples, Denominators(tokens=work.chosen, episodes=count, groups=1))
    return lambda: learner.update(batch)


def bare(work: Work) -> Callable[[], None]:
    """transformers' model in plain torch, on the learner's own micro-batches."""
    import torch

    from training.learner.microbatches import microbatches

    model = _model(work)
    optimizer = _adamw(model)
    parts = [part.to(torch.device(work.device)) for part in microbatches(work.samples, work.budget)]

    def loss(token_ids: Any, mask: Any) -> Any:
        hidden = model.model(input_ids=token_ids, use_cache=False).last_hidden_state
        before_chosen = mask[:, 1:].bool()
        logits = model.lm_head(hidden[:, :-1][before_chosen])
        return torch.nn.functional.cross_entropy(logits, token_ids[:, 1:][before_chosen], reduction="sum")

    def step() -> None:
        for part in parts:
            with torch.autocast("cuda", torch.bfloat16) if work.gpu else contextlib.nullcontext():
                share = loss(part.token_ids, part.mask) / work.chosen
            share.backward()
        _apply(model, optimizer)

    return step


def trl(work: Work) -> Callable[[], None]:
    """TRL's loss on the batch as its trainer pads it, in as few micro-batches as the budget allows."""
    model, trainer = _trainer(work)
    optimizer = _adamw(model)
    batch = _padded(work)
    width = batch["prompt_ids"].shape[1] + batch["completion_ids"].shape[1]
    size = max(1, work.budget // width)
    parts = [
        {name: tensor[start : start + size] for name, tensor in batch.items()}
        for start in range(0, len(work.samples), size)
    ]
    # The default loss (dapo) divides by the chosen tokens of the whole batch.
    trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = len(parts)

    def step() -> None:
        for part in parts:
            with trainer.compute_loss_context_manager():
                loss = trainer._compute_loss(model, part | {"num_items_in_batch": batch["completion_mask"].sum()})
            trainer.accelerator.backward(loss)
        _apply(model, optimizer)

    return step


SIDES: dict[str, Callable[[Work], Callable[[], object]]] = {"rayward": rayward, "TRL": trl, "bare": bare}


def _trainer(work: Work) -> tuple[Any, Any]:
    """(model, GRPOTrainer) with TRL's fastest settings: no gradient checkpointing, no reference model."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    arguments = GRPOConfig(
        output_dir=str(work.model / "trl"),
        per_device_train_batch_size=len(work.samples),
        num_generations=len(work.samples),
        max_completion_length=_widths(work.samples)[1],
        temperature=1.0,
        beta=0.0,
        use_cpu=not work.gpu,
        bf16=work.gpu,
        gradient_checkpointing=False,
        report_to=[],
    )
    trainer = GRPOTrainer(
        model=_model(work),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": ["a"]}),
        processing_class=AutoTokenizer.from_pretrained(work.model),
    )
    torch.set_num_threads(work.threads)  # the trainer may have set it
    trainer.model.train()
    return trainer.model, trainer


def _padded(work: Work) -> dict[str, Any]:
    """TRL's batch: prompts padded on the left and answers on the right, each to the longest."""
    import torch

    prompt_width, answer_width = _widths(work.samples)
    rows = len(work.samples)
    batch = {
        "prompt_ids": torch.zeros(rows, prompt_width, dtype=torch.int64),
        "prompt_mask": torch.zeros(rows, prompt_width, dtype=torch.int64),
        "completion_ids": torch.zeros(rows, answer_width, dtype=torch.int64),
        "completion_mask": torch.zeros(rows, answer_width, dtype=torch.int64),
        "advantages": torch.tensor([sample.advantage for sample in work.samples]),
    }
    for row, sample in enumerate(work.samples):
        ids = torch.tensor(sample.token_ids_T)
        prompt = len(ids) - sample.chosen
        batch["prompt_ids"][row, prompt_width - prompt :] = ids[:prompt]
        batch["prompt_mask"][row, prompt_width - prompt :] = 1
        batch["completion_ids"][row, : sample.chosen] = ids[prompt:]
        batch["completion_mask"][row, : sample.chosen] = 1
    return {name: tensor.to(work.device) for name, tensor in batch.items()}


def _widths(samples: Sequence[Sample]) -> tuple[int, int]:
    """Longest prompt, longest answer."""
    return max(len(s.token_ids_T) - s.chosen for s in samples), max(s.chosen for s in samples)


def _model(work: Work) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(work.threads)
    return AutoModelForCausalLM.from_pretrained(work.model, dtype=torch.float32).to(work.device)


def _adamw(model: Any) -> Any:
    """Fused, as transformers' trainer takes it by default."""
    import torch

    return torch.optim.AdamW(model.parameters(), lr=OPTIMIZER.lr, betas=(OPTIMIZER.beta1, OPTIMIZER.beta2), fused=True)


def _apply(model: Any, optimizer: Any) -> None:
    import torch

    torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER.clip_norm)
    optimizer.step()
    optimizer.zero_grad()
