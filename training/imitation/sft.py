"""Supervised fine-tuning on scripted demonstrations (TRL's SFTTrainer): a policy that RL can improve."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.training import TrainConfig
from deployments.storage.atomic import written_whole
from deployments.storage.vision import Vision
from training.imitation.demonstrations import dataset, training_samples
from training.rendering.renderer import ChatRenderer

Progress = Callable[[int, int, float], None]  # step, steps, loss (the mean of the last few steps)
STEPS_PER_LOSS = 20


def warmstart(config: TrainConfig, model_folder: Path, output: Path, progress: Progress | None = None) -> float:
    """Trains `model_folder` on demonstrations, saves model and tokenizer to `output`; returns the last loss.

    `output` appears whole at the end. Raises ConfigError, before it trains, when it is there and holds something else.
    """
    with written_whole(output) as staged:
        return _train(config, model_folder, staged, progress)


def _train(config: TrainConfig, model_folder: Path, output: Path, progress: Progress | None) -> float:
    os.environ.setdefault("ACCELERATE_USE_CPU", "1" if not _cuda() else "0")
    import torch
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from training.learner.architecture import attention
    from training.learner.loading import model_class, save_reader
    from training.learner.pixels import PixelReader

    settings = config.warmstart
    renderer = ChatRenderer(AutoTokenizer.from_pretrained(model_folder), Vision.load(model_folder))
    samples = training_samples(config, renderer)
    reader = PixelReader.load(model_folder)
    model = model_class(model_folder).from_pretrained(
        model_folder, dtype=torch.float32, attn_implementation=attention(model_folder)
    )
    arguments = SFTConfig(
        output_dir=str(output),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.lr,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup_steps,
        adam_beta2=0.95,
        max_grad_norm=1.0,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.1},
        logging_first_step=True,
        logging_steps=min(STEPS_PER_LOSS, settings.steps),  # a shorter warm start still tells its loss at the end
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=config.seed,
        bf16=False,
        use_cpu=not _cuda(),
        gradient_checkpointing=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_num_workers=0,
        remove_unused_columns=False,
    )
    losses: list[float] = []

    class Report(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                losses.append(float(logs["loss"]))

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if progress is not None and losses:  # the first step's loss is told after its end
                progress(state.global_step, settings.steps, losses[-1])

    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset(samples),
        processing_class=renderer.tokenizer,
        callbacks=[Report()],
    )
    trainer.remove_callback(_printer())
    collate = trainer.data_collator

    def without_mask(chosen: list[dict[str, Any]]) -> dict[str, Any]:
        """Padding is on the right: a causal model never looks at it, and long batches are quicker without a mask."""
        batch = dict(collate([{name: each[name] for name in ("input_ids", "labels")} for each in chosen]))
        if reader is not None:  # positions depend on the images
            pixels = reader.fresh()([samples[each["sample"]] for each in chosen])
            return batch if pixels is None else batch | pixels.inputs(batch["input_ids"], reader.vision)
        del batch["attention_mask"]
        return batch | {"position_ids": torch.arange(batch["input_ids"].shape[1]).expand_as(batch["input_ids"])}

    trainer.data_collator = without_mask
    trainer.train()
    model.save_pretrained(output)
    save_reader(model_folder, output)
    return losses[-1]


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _printer() -> Any:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback
