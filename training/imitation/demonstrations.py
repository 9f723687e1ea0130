"""Episodes of the scripted expert, as the policy would see and say them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from configs.training import TrainConfig
from training.environments.calls import checked_observation, checked_result
from training.environments.processes import opened
from training.rendering.conversation import Conversation
from training.rendering.renderer import ChatRenderer
from training.rollouts.samples import episode_samples
from training.types import Episode, Sample, Task, Turn


def demonstrations(config: TrainConfig, renderer: ChatRenderer, seed: int = 0) -> Iterator[Episode]:
    """Episodes of the scripted expert with its configured noise, rendered as the policy would see and say them."""
    settings = config.warmstart
    rng = random.Random(f"demonstrations/{config.seed}/{seed}")
    environment = opened(config.env, config.env.scripted)
    for index in range(settings.episodes):
        task = Task(config.env.name, rng.getrandbits(31), index)
        conversation = Conversation(config.env, environment.spec, renderer)
        conversation.start(checked_observation(environment.reset(task.seed)))
        turns: list[Turn] = []
        while True:
            action = environment.expert_action(rng, settings.noise, settings.illegal_noise)
            answer = renderer.answer(action)
            result = checked_result(environment.step(action))
            turns.append(
                Turn(
                    conversation.added,
                    answer,
                    logprobs=(0.0,) * len(answer),
                    weight_version=0,
                    reward=result.reward,
                    text=action,
                    extends=conversation.extends,
                    images=conversation.added_images,
                )
            )
            over = result.terminated or result.truncated
            if over or len(turns) >= config.env.max_turns:
                break
            conversation.next(answer, action, result.observation)
        yield Episode(task, 0, tuple(turns), "completed", result.success)
    environment.close()


def training_samples(config: TrainConfig, renderer: ChatRenderer) -> list[Sample]:
    """As many sequences as the warm start takes, in random order; images that are equal are one."""
    kept: dict[bytes, Any] = {}
    samples = []
    for episode in demonstrations(config, renderer):
        for sample in episode_samples(episode, 1.0, 0):
            images = tuple(kept.setdefault(image.tobytes(), image) for image in sample.images)
            samples.append(replace(sample, images=images))
    random.Random(f"order/{config.seed}").shuffle(samples)
    return samples[: config.warmstart.steps * config.warmstart.batch_size]


def dataset(samples: Sequence[Sample]) -> Any:
    """Token ids, labels (-100 where the policy did not choose) and the position of each sample, as a
    datasets.Dataset."""
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "sample": list(range(len(samples))),
            "input_ids": [list(sample.token_ids_T) for sample in samples],
            "labels": [
                [token if chosen else -100 for token, chosen in zip(sample.token_ids_T, sample.mask_T, strict=True)]
                for sample in samples
            ],
        }
    )
