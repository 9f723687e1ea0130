"""Samples/s of a whole GRPO step against TRL's GRPOTrainer on this machine: `python -m benchmarks.vs_trl [--check]`.

(a) multi-turn: KeyDoor with the whole history, 8 groups of 8; TRL plays the same environment in its `rollout_func`, all
    episodes of the step in one batch per turn, with transformers' generate (its only engine on a CPU).
(b) single turn: 64 answers of 32 tokens, a model of SmolLM2's shape (135 M parameters) with random weights. TRL's best
    case: everything in one process, nothing to send anywhere. `tiny`: the same with 0.6 M, where schedulers decide.

Same start model, prompts, rewards, sampling, and a learning rate so small that both go on playing alike. Blocks of
steps take turns; the first step of a block is not counted. TRL's step has no weight transfer and no server in it.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.common import Figure, options, report
from benchmarks.shapes import SMOLLM2_135M, Shape, save
from benchmarks.single_turn import question, text_reward
from configs.training import TrainConfig
from deployments.storage import runs
from envs.registry import make as make_env
from training.cluster.child import in_own_process
from training.rendering.conversation import Conversation
from training.rendering.renderer import ChatRenderer
from training.rollouts.buffer import task_at
from training.rollouts.session import Session, open_session
from training.run.driver import train
from training.run.start import start_model

LR = 1e-7
ANSWER_TOKENS = 32


@dataclass(frozen=True)
class Case:
    name: str
    overrides: tuple[str, ...]  # of CONFIG
    bar: float | None
    blocks: int
    steps: int  # of one block; the first is not counted
    shape: Shape | None = None  # of the model; None: the configuration's tiny one
    accumulation: int = 1  # TRL's micro-batches per step, for its memory


CONFIG = "configs/train/key_door_tiny.yaml"
SINGLE_TURN = (
    "env.name=benchmarks.single_turn:SingleTurn",
    "env.kwargs={}",
    "env.history=none",
    f"sampling.max_tokens={ANSWER_TOKENS}",
    "algorithm.updates_per_batch=1",
    "warmstart.enabled=false",
    "model.tiny.max_positions=256",
    "serving.engine.max_model_len=128",
    f"optimizer.lr={LR}",
    "checkpoint.every_steps=0",
)
CASES = {
    "a": Case(
        "a: KeyDoor, whole history, 8 x 8",
        (f"optimizer.lr={LR}", "checkpoint.every_steps=0", "algorithm.updates_per_batch=1", "warmstart.steps=80"),
        3.0,
        blocks=1,
        steps=4,
    ),
    "b": Case(
        "b: 64 answers of 32 tokens, 135 M parameters",
        (*SINGLE_TURN, "learner.max_tokens_per_microbatch=1024", "serving.engine.cpu_kv_cache_gib=0.5"),
        1.0,
        blocks=1,
        steps=3,
        shape=SMOLLM2_135M,
        accumulation=4,
    ),
    "tiny": Case("b: 64 answers of 32 tokens, 0.6 M parameters", SINGLE_TURN, None, blocks=2, steps=5),
}


@dataclass
class Steps:
    """Seconds and chosen tokens of each counted step."""

    seconds: list[float]
    tokens: list[float]


def our_block(session: Session, first: int, steps: int) -> Steps:
    """Steps `first`.. of a run that continues from its last block."""
    found: dict[int, dict[str, float]] = {}
    config = session.config.model_copy(update={"steps": first + steps})
    train(replace(session, config=config), lambda step, metrics: found.update({step: metrics}))
    counted = [found[step] for step in range(first + 1, first + steps)]
    return Steps([m["train/step_s"] for m in counted], [m["rollout/tokens_total"] for m in counted])


def trl_block(config: TrainConfig, model: Path, case: str, folder: Path, steps: int) -> Steps:
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tokenizer = AutoTokenizer.from_pretrained(model)
    renderer = ChatRenderer(tokenizer)
    tokenizer.padding_side = "left"
    groups, size = config.rollout.groups_per_step, config.rollout.group_size
    seeds = [task_at(config.env.name, config.seed, index).seed for index in range(groups * steps)]
    content = str if case == "a" else question
    rows = Dataset.from_dict({"prompt": [[{"role": "user", "content": content(seed)}] for seed in seeds]})
    ends: list[float] = []
    tokens: list[float] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    def text_rewards(completions: Any, completion_ids: Any, **_: Any) -> list[float]:
        tokens.append(float(sum(map(len, completion_ids))))
        return [text_reward(completion[0]["content"]) for completion in completions]

    def played_rewards(episode_return: list[float], env_mask_sum: list[int], **_: Any) -> list[float]:
        tokens.append(float(sum(env_mask_sum)))
        return episode_return

    arguments = GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=groups * size // CASES[case].accumulation,
        gradient_accumulation_steps=CASES[case].accumulation,
        num_generations=size,
        max_steps=steps,
        max_completion_length=2048 if case == "a" else ANSWER_TOKENS,
        learning_rate=LR,
        temperature=1.0,
        beta=0.0,
        adam_beta2=0.95,
        shuffle_dataset=False,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        reward_funcs=played_rewards if case == "a" else text_rewards,
        args=arguments,
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[Clock()],
        rollout_func=rollouts(config, renderer) if case == "a" else None,
    )
    trainer.train()
    return Steps([b - a for a, b in itertools.pairwise(ends)][1:], tokens[1:])


def rollouts(config: TrainConfig, renderer: ChatRenderer) -> Callable[[list[Any], Any], dict[str, list[Any]]]:
    """TRL's hook for multi-turn: all episodes of the batch at once, one `generate` per turn."""
    import torch

    def play(prompts: list[Any], trainer: Any) -> dict[str, list[Any]]:
        model = trainer.accelerator.unwrap_model(trainer.model)
        episodes = []
        for prompt in prompts:
            env = make_env(config.env.name, **config.env.kwargs)
            chat = Conversation(config.env, env.spec, renderer)
            first = chat.start(env.reset(int(prompt[0]["content"])))
            episodes.append(
                {"env": env, "chat": chat, "first": first, "ids": [], "mask": [], "logp": [], "return": 0.0}
            )
        live = list(episodes)
        turns = 0
        while live and turns < config.env.max_turns:
            turns += 1
            inputs = [list(e["first"]) + e["ids"] for e in live]
            width = max(map(len, inputs))
            pad = renderer.tokenizer.pad_token_id
            ids = torch.tensor([[pad] * (width - len(row)) + row for row in inputs])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in inputs])
            with torch.no_grad():
                out = model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    do_sample=True,
                    temperature=1.0,
                    top_k=0,
                    top_p=1.0,
                    max_new_tokens=config.sampling.max_tokens,
                    pad_token_id=pad,
                    eos_token_id=renderer.end_id,
                    output_logits=True,
                    return_dict_in_generate=True,
                )
            logp = torch.stack(out.logits, 1).log_softmax(-1)
            new = out.sequences[:, width:]
            chosen = logp.gather(-1, new[..., None])[..., 0]
            still = []
            for episode, answer, values in zip(live, new.tolist(), chosen.tolist(), strict=True):
                if renderer.end_id in answer:
                    answer = answer[: answer.index(renderer.end_id) + 1]
                text = renderer.decode(answer)
                result = episode["env"].step(text)
                episode["ids"] += answer
                episode["mask"] += [1] * len(answer)
                episode["logp"] += values[: len(answer)]
                episode["return"] += result.reward
                if not (result.terminated or result.truncated):
                    episode["chat"].next(answer, text, result.observation)
                    added = list(episode["chat"].added)
                    episode["ids"] += added
                    episode["mask"] += [0] * len(added)
                    episode["logp"] += [0.0] * len(added)
                    still.append(episode)
            live = still
        return {
            "prompt_ids": [list(e["first"]) for e in episodes],
            "completion_ids": [e["ids"] for e in episodes],
            "logprobs": [e["logp"] for e in episodes],
            "env_mask": [e["mask"] for e in episodes],
            "env_mask_sum": [sum(e["mask"]) for e in episodes],
            "episode_return": [e["return"] for e in episodes],
        }

    return play


def measure(name: str, blocks: int, steps: int) -> list[Figure]:
    case = CASES[name]
    ours, trl = Steps([], []), Steps([], [])
    with tempfile.TemporaryDirectory() as folder:
        settings = [*case.overrides, f"storage_path={folder}", f"steps={blocks * steps}"]
        if case.shape is not None:
            settings.append(f"model.source={in_own_process(save, case.shape, Path(folder) / 'model')}")
        config = TrainConfig.load(CONFIG, settings)
        run = runs.create(config)
        model = start_model(config, run)
        with open_session(config, run, model) as session:
            for block in range(blocks):
                for side in (0, 1) if block % 2 else (1, 0):
                    if side == 0:
                        part, into = our_block(session, block * steps, steps), ours
                    else:
                        part, into = trl_block(config, model, name, Path(folder) / "trl", steps), trl
                    into.seconds.extend(part.seconds)
                    into.tokens.extend(part.tokens)
    samples = config.rollout.groups_per_step * config.rollout.group_size
    rates = {side: samples / statistics.median(s.seconds) for side, s in (("rayward", ours), ("TRL", trl))}
    per_token = {
        side: statistics.median(t / s for t, s in zip(steps_.tokens, steps_.seconds, strict=True))
        for side, steps_ in (("rayward", ours), ("TRL", trl))
    }
    return [
        *(Figure(f"{case.name}, {side}", rate, "samples/s") for side, rate in rates.items()),
        *(Figure(f"{case.name}, {side}, chosen tokens", rate, "tokens/s") for side, rate in per_token.items()),
        Figure(f"{case.name}, rayward / TRL", rates["rayward"] / rates["TRL"], "ratio", case.bar),
        Figure(f"{case.name}, rayward / TRL, by tokens", per_token["rayward"] / per_token["TRL"], "ratio"),
    ]


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--case", choices=(*CASES, "all"), default="all")
    parser.add_argument("--blocks", type=int, help="default: as many as fit into ten minutes for all cases")
    parser.add_argument("--steps", type=int, help="steps of one block")
    chosen = parser.parse_args()
    names = tuple(CASES) if chosen.case == "all" else (chosen.case,)
    figures = []
    for name in names:
        case = CASES[name]
        figures += measure(name, chosen.blocks or case.blocks, chosen.steps or case.steps)
    report("vs_trl" if chosen.case == "all" else f"vs_trl_{chosen.case}", figures, chosen)


if __name__ == "__main__":
    main()
