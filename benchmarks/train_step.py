"""What a GRPO step costs above its bare parts: `python -m benchmarks.train_step [--check]`.

A synchronous step (rollouts through Serve, update, publish) against the engine generating the same tokens plus forward
and backward of the same tokens in plain torch, with the learner's own micro-batches and chosen positions only. Blocks
of steps and of bare parts take turns.

Two bounds for the engine: `turns in order` asks for a turn when the one before has been answered, as an episode must;
`all at once` gives the engine every turn of the step at the same moment, which no player of episodes could do.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.common import Figure, options, report
from configs.training import TrainConfig
from deployments.engines.vllm.settings import engine_arguments, process_environment
from deployments.storage import runs
from training.learner.microbatches import MicroBatch, microbatches
from training.rollouts.records import turns
from training.rollouts.samples import sample, sequences
from training.rollouts.session import Session, open_session
from training.run.driver import train
from training.run.start import start_model
from training.types import Turn, prompts

CONFIG = "configs/train/tictactoe_tiny.yaml"
Episodes = list[list[Turn]]  # of one step; the turns of an episode in their order


def recorded(run: runs.RunFolder, step: int) -> tuple[Episodes, Episodes]:
    """(all episodes of a step, those in groups with spread, which the learner trained on)."""
    from pyarrow import parquet

    rows: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    returns: dict[int, set[float]] = defaultdict(set)
    for row in parquet.read_table(run.episodes / f"step-{step:08d}.parquet").to_pylist():
        rows[row["group"], row["sibling"]].append(row)
        returns[row["group"]].add(row["return"])
    episodes = {place: turns(found) for place, found in rows.items()}
    trained = [played for (group, _), played in episodes.items() if len(returns[group]) > 1]
    return list(episodes.values()), trained


class BareEngine:
    """AsyncLLM in this process, with the replica's own settings."""

    def __init__(self, config: TrainConfig, model: Path) -> None:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        os.environ.update(process_environment(config.serving.engine), OMP_NUM_THREADS="1")
        arguments = engine_arguments(config.serving.engine, str(model), weight_updates=False)
        self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
        self._sent = 0

    async def turn(self, turn: Turn, prompt_ids: tuple[int, ...]) -> None:
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        self._sent += 1
        sampling = SamplingParams(
            temperature=1.0,
            max_tokens=len(turn.completion_ids),
            ignore_eos=True,
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        prompt: Any = {"type": "token", "prompt_token_ids": list(prompt_ids)}
        async for _ in self._engine.generate(prompt, sampling, f"r{self._sent}"):
            pass

    async def seconds(self, episodes: Episodes, in_order: bool) -> float:
        async def play(turns: list[tuple[Turn, tuple[int, ...]]]) -> None:
            for turn, prompt_ids in turns:
                await self.turn(turn, prompt_ids)

        whole = [list(zip(episode, prompts(episode), strict=True)) for episode in episodes]
        work = whole if in_order else [[turn] for episode in whole for turn in episode]
        # The cache of the step before must not answer: the engine of a run forgets it with each new version.
        await self._engine.reset_prefix_cache()
        began = time.perf_counter()
        await asyncio.gather(*map(play, work))
        return time.perf_counter() - began

    def close(self) -> None:
        self._engine.shutdown()


class BareLearner:
    """The model in plain torch: forward, policy-gradient loss, backward, clip, AdamW.

    It does no more than an update must: the learner's own micro-batches, and only the positions before a chosen token
    go through the head. Left out are what the learner adds: chunks that are computed again, entropy, ratios, metrics.
    """

    def __init__(self, config: TrainConfig, model: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self._max_tokens = config.learner.max_tokens_per_microbatch
        self._clip_norm = config.optimizer.clip_norm
        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=1e-6)

    def seconds(self, episodes: Episodes) -> float:
        import torch

        began = time.perf_counter()
        samples = [sample(run, 1.0, 0) for turns in episodes for run in sequences(turns)]
        if not samples:
            return 0.0
        tokens = sum(each.chosen for each in samples)
        for part in microbatches(samples, self._max_tokens):
            (self._loss(part) / tokens).backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return time.perf_counter() - began

    def _loss(self, part: MicroBatch) -> Any:
        import torch

        hidden = self._model.model(input_ids=part.token_ids, use_cache=False).last_hidden_state
        before_chosen = part.mask[:, 1:].bool()
        logits = self._model.lm_head(hidden[:, :-1][before_chosen])
        return torch.nn.functional.cross_entropy(logits, part.token_ids[:, 1:][before_chosen], reduction="sum")


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8, help="steps of one block; its first is not counted")
    chosen = parser.parse_args()
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        total = chosen.blocks * chosen.steps
        # One update a batch, as the bare parts do one.
        settings = ["tracking.episodes_every_steps=1", "algorithm.updates_per_batch=1", "warmstart.steps=200"]
        config = TrainConfig.load(CONFIG, [f"storage_path={folder}", f"steps={total}", *settings])
        run = runs.create(config)
        model = start_model(config, run)
        with open_session(config, run, model) as session:
            asyncio.run(play(session, chosen.blocks, chosen.steps, rows))
    medians = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    figures = [Figure(name, value, "s") for name, value in medians.items()]
    for engine, bar in (("turns in order", None), ("all at once", 1.25)):
        ratio = statistics.median(row["step"] / (row[f"engine, {engine}"] + row["forward, backward"]) for row in rows)
        figures.append(Figure(f"step / bare parts ({engine})", ratio, "ratio", bar, lower_is_better=True))
    report("train_step", figures, chosen)


async def play(session: Session, blocks: int, steps: int, rows: list[dict[str, float]]) -> None:
    engine, learner = BareEngine(session.config, session.model), BareLearner(session.config, session.model)
    try:
        for block in range(blocks):
            seconds: dict[int, float] = {}
            config = session.config.model_copy(update={"steps": steps * (block + 1)})

            def on_step(step: int, metrics: dict[str, float], seconds: dict[int, float] = seconds) -> None:
                seconds[step] = metrics["train/step_s"]

            await asyncio.to_thread(train, replace(session, config=config), on_step)
            for step in range(block * steps + 1, (block + 1) * steps):
                everything, trained = recorded(session.run, step)
                row = {"step": seconds[step]}
                for name, in_order in (("turns in order", True), ("all at once", False)):
                    row[f"engine, {name}"] = await engine.seconds(everything, in_order)
                row["forward, backward"] = learner.seconds(trained)
                rows.append(row)
    finally:
        engine.close()


if __name__ == "__main__":
    main()
