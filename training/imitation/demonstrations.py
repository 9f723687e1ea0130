"""Episodes of the scripted expert, as the policy would see and say them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from configs.training import TrainConfig
from envs.registry import make as make_env
from training.rollouts.conversation import Conversation
from training.rollouts.renderer import ChatRenderer
from training.rollouts.samples import episode_samples
from training.types import Episode, Task, Turn


def demonstrations(config: TrainConfig, renderer: ChatRenderer, seed: int = 0) -> Iterator[Episode]:
    """Episodes of the scripted expert with its configured noise, rendered as the policy would see and say them."""
    settings = config.warmstart
    rng = random.Random(f"demonstrations/{config.seed}/{seed}")
    environment = make_env(config.env.name, **config.env.kwargs)
    for index in range(settings.episodes):
        task = Task(config.env.name, rng.getrandbits(31), index)
        conversation = Conversation(config.env, environment.spec, renderer)
        conversation.start(environment.reset(task.seed))
        turns: list[Turn] = []
        while True:
            action = environment.expert_action(rng, settings.noise, settings.illegal_noise)
            answer = renderer.answer(action)
            result = environment.step(action)
            logprobs = (0.0,) * len(answer)
            extends = conversation.extends
            turns.append(Turn(conversation.added, answer, logprobs, 0, result.reward, text=action, extends=extends))
            over = result.terminated or result.truncated
            if over or len(turns) >= config.env.max_turns:
                break
            conversation.next(answer, action, result.observation)
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
