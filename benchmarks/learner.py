"""Tokens/s and peak memory of a learner step against TRL and plain torch: `python -m benchmarks.learner [--check]`.

A step is forward, loss and backward of a batch in micro-batches, clipping and AdamW, on every side. The model has
SmolLM2's shape (135 M parameters) and random weights, in float32; on a GPU Qwen2.5's shapes of 0.5 and 1.5 billion
parameters, in bfloat16, with the share of the GPU's peak that the step reaches (MFU).

- `rayward`: `Learner.update`, as a run calls it.
- `TRL`: `GRPOTrainer._compute_loss` on the batch as its trainer makes it (prompts padded on the left, answers on the
  right, each to the longest of the batch), with its own fused head and without gradient checkpointing.
- `bare`: the learner's micro-batches through transformers' model. Only the positions before a chosen token go through
  the head, logits are held whole, the loss is cross entropy: an update cannot do less.

A micro-batch holds at most `--budget` tokens, padding included, on every side. Each side is a process of its own, for
its peak memory. Sides take turns step by step (on a GPU, which holds one at a time, block by block); the first step of
a block is not counted.
"""

from __future__ import annotations

import math
import os
import random
import resource
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from benchmarks import shapes
from benchmarks.common import Figure, options, report
from benchmarks.learner_sides import SIDES, Work
from training.cluster.child import Report, in_own_process
from training.cluster.quiet import quiet_libraries
from training.types import Sample

GIB = 2**30
PEAK_FLOPS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "L4": 121e12}  # dense bfloat16, from the data sheets


@dataclass(frozen=True)
class Lengths:
    """A batch: its sequences, and the smallest and largest number of tokens of prompts and answers."""

    name: str
    sequences: int
    prompt: tuple[int, int]
    answer: tuple[int, int]


@dataclass(frozen=True)
class Setting:
    """What is measured on one kind of machine. `budget`: tokens of a micro-batch."""

    shapes: tuple[shapes.Shape, ...]
    lengths: tuple[Lengths, ...]
    budget: int


CPU = Setting(
    (shapes.SMOLLM2_135M,),
    (Lengths("8 of 96 to 224", 8, (48, 112), (48, 112)), Lengths("16 of 32 + 32", 16, (32, 32), (32, 32))),
    1024,
)
GPU = Setting(
    (shapes.QWEN25_0_5B, shapes.QWEN25_1_5B),
    (
        Lengths("64 of 256 to 1,024", 64, (128, 512), (128, 512)),
        Lengths("16 of 1,024 + 1,024", 16, (1024,) * 2, (1024,) * 2),
    ),
    16384,
)


def samples(lengths: Lengths, vocabulary: int) -> tuple[Sample, ...]:
    """Random tokens, about half of them chosen, by a sampler to which all tokens were alike, as to random weights."""
    rng = random.Random(0)
    made = []
    for index in range(lengths.sequences):
        prompt, answer = rng.randint(*lengths.prompt), rng.randint(*lengths.answer)
        ids = tuple(rng.randrange(vocabulary) for _ in range(prompt + answer))
        logp = (0.0,) * prompt + (-math.log(vocabulary),) * answer
        made.append(Sample(ids, (0,) * prompt + (1,) * answer, logp, (-1.0) ** index))
    return tuple(made)


@dataclass(frozen=True)
class Step:
    """What a side's process saw: the seconds of one step, its largest memory so far, the GPU's name."""

    seconds: float
    peak_bytes: int
    gpu: str


_take: Callable[[], object]  # in a side's process


def _prepare(side: str, work: Work) -> None:
    global _take
    quiet_libraries()
    _take = SIDES[side](work)


def _step(gpu: bool) -> Step:
    import torch

    began = time.perf_counter()
    _take()
    if not gpu:
        seconds = time.perf_counter() - began
        return Step(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "")
    torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    return Step(seconds, torch.cuda.max_memory_allocated(), torch.cuda.get_device_name())


def block(sides: Sequence[str], work: Work, steps: int) -> dict[str, list[Step]]:
    """Steps of the sides in turns, each side in a process of its own; without the first step."""
    found: dict[str, list[Step]] = {side: [] for side in sides}
    with ExitStack() as stack:
        processes = {
            side: stack.enter_context(
                ProcessPoolExecutor(1, get_context("spawn"), initializer=_prepare, initargs=(side, work))
            )
            for side in sides
        }
        for index in range(steps):
            for side in sides if index % 2 else reversed(sides):
                step = processes[side].submit(_step, work.gpu).result()
                print(f"{side}: {step.seconds:.2f} s, {step.peak_bytes / GIB:.2f} GiB", flush=True)
                found[side].append(step)
    return {side: taken[1:] for side, taken in found.items()}


def measure(shape: shapes.Shape, lengths: Lengths, work: Work, blocks: int, steps: int) -> list[Figure]:
    found: dict[str, list[Step]] = defaultdict(list)
    # A GPU's memory holds one side at a time.
    together = [[side] for side in SIDES] if work.gpu else [list(SIDES)]
    for sides in together * blocks:
        for side, taken in block(sides, work, steps).items():
            found[side] += taken
    name = f"{shape.name}, {lengths.name}"
    tokens = [len(sample.token_ids_T) for sample in work.samples]
    rate = {side: sum(tokens) / statistics.median(step.seconds for step in taken) for side, taken in found.items()}
    peak = {side: max(step.peak_bytes for step in taken) / GIB for side, taken in found.items()}
    gpu = found["rayward"][0].gpu
    figures = [
        *(Figure(f"{name}, {side}", rate[side], "tokens/s") for side in SIDES),
        *(Figure(f"{name}, {side}, peak", peak[side], "GiB") for side in SIDES),
        Figure(f"{name}, rayward / bare", rate["rayward"] / rate["bare"], "ratio", 0.95),
        Figure(f"{name}, rayward / TRL", rate["rayward"] / rate["TRL"], "ratio", 1.0),
        Figure(f"{name}, peak, rayward / TRL", peak["rayward"] / peak["TRL"], "ratio", 0.8, lower_is_better=True),
    ]
    flops = shape.step_flops(sum(tokens), work.chosen, sum(t * (t + 1) // 2 for t in tokens)) / sum(tokens)
    device_flops = next((value for part, value in PEAK_FLOPS.items() if part in gpu), None)
    for side in SIDES:
        if device_flops:
            figures.append(Figure(f"{name}, {side}, MFU", flops * rate[side] / device_flops, "of the peak"))
        else:
            figures.append(Figure(f"{name}, {side}, arithmetic", flops * rate[side] / 1e9, "GFLOP/s"))
    return figures


def has_gpu(_: Report) -> bool:
    import torch

    return torch.cuda.is_available()


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5, help="steps of one block; its first is not counted")
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="of PyTorch; default: all cores"
    )
    parser.add_argument("--lengths", type=int, nargs="+", help="which batches, by their number from 0; default: all")
    parser.add_argument("--budget", type=int, help="tokens of a micro-batch; default: 1,024 on a CPU, 16,384 on a GPU")
    chosen = parser.parse_args()
    gpu = in_own_process(has_gpu)
    setting = GPU if gpu else CPU
    figures = []
    for shape in setting.shapes:
        with tempfile.TemporaryDirectory() as folder:
            in_own_process(shapes.save, shape, Path(folder))
            for lengths in setting.lengths if chosen.lengths is None else [setting.lengths[i] for i in chosen.lengths]:
                batch = samples(lengths, shape.vocabulary)
                work = Work(Path(folder), batch, chosen.budget or setting.budget, chosen.threads, gpu)
                figures += measure(shape, lengths, work, chosen.blocks, chosen.steps)
    report("learner", figures, chosen)


if __name__ == "__main__":
    main()
