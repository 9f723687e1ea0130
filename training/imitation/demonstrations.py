"""Episodes of the scripted expert, as the policy would see and say them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from configs.training import TrainConfig
from envs.history import make_history
from envs.registry import make as make_env
from training.rollouts.renderer import ChatRenderer
from training.rollouts.samples import episode_samples
from training.types import Episode, Task, Turn


def demonstrations(config: TrainConfig, renderer: ChatRenderer, seed: int = 0) -> Iterator[Episode]:
    """Episodes of the scripted expert with its configured noise, rendered as the policy would see and say them."""
    settings = config.warmstart
    rng = random.Random(f"demonstrations/{config.seed}/{seed}")
    environment = make_env(config.env.name, **config.env.kwargs)
    system = environment.spec.system_prompt if config.env.system_prompt is None else config.env.system_prompt
    for index in range(settings.episodes):
        task = Task(config.env.name, rng.getrandbits(31), index)
        history = make_history(config.env.history, environment.spec)
        prompt = renderer.prompt(history.start(system, environment.reset(task.seed)))
        turns: list[Turn] = []
        while True:
            action = environment.expert_action(rng, settings.noise, settings.illegal_noise)
            answer = (*renderer.tokenizer.encode(action, add_special_tokens=False), renderer.end_id)
            result = environment.step(action)
            turns.append(Turn(prompt, answer, (0.0,) * len(answer), 0, result.reward, text=action))
            over = result.terminated or result.truncated
            if over or len(turns) >= config.env.max_turns:
                break
            messages = history.next(action, result.observation)
            if history.append_only:
                prompt = prompt + answer + renderer.continuation(answer, messages[-1:])
            else:
                prompt = renderer.prompt(messages)
        yield Episode(task, 0, tuple(turns), "completed", result.success)
    environment.close()


def dataset(config: TrainConfig, renderer: ChatRenderer) -> Any:
    """Token ids and labels (-100 where the policy did not choose) as a datasets.Dataset, in random order."""
    from datasets import Dataset

    samples = [sample for episode in demonstrations(config, renderer) for sample in episode_samples(episode, 1.0, 0)]
    random.Random(f"order/{config.seed}").shuffle(samples)
    samples = samples[: config.warmstart.steps * config.warmstart.batch_size]
    return Dataset.from_dict(
        {
            "input_ids": [list(sample.token_ids_T) for sample in samples],
            "labels": [
                [token if chosen else -100 for token, chosen in zip(sample.token_ids_T, sample.mask_T, strict=True)]
                for sample in samples
            ],
        }
    )
