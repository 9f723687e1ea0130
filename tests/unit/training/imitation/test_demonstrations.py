"""Scripted episodes as training sequences."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.training import TrainConfig
from training.imitation.demonstrations import dataset, demonstrations, training_samples
from training.rendering.renderer import ChatRenderer


@pytest.fixture(scope="module")
def renderer(policy_folder: Path) -> ChatRenderer:
    return ChatRenderer.load(str(policy_folder))


def config(**warmstart: object) -> TrainConfig:
    return TrainConfig.parse({"env": {"name": "tictactoe", "system_prompt": ""}, "warmstart": warmstart})


def test_the_expert_without_noise_never_loses(renderer: ChatRenderer) -> None:
    episodes = list(demonstrations(config(episodes=20, noise=0.0), renderer))
    assert len(episodes) == 20
    assert min(episode.episode_return for episode in episodes) >= 0
    assert all(episode.end == "completed" for episode in episodes)


def test_demonstrations_repeat_with_the_seed(renderer: ChatRenderer) -> None:
    def played(seed: int) -> list[tuple[str, ...]]:
        return [
            tuple(turn.text for turn in episode.turns) for episode in demonstrations(config(episodes=5), renderer, seed)
        ]

    assert played(0) == played(0)
    assert played(0) != played(1)


def test_an_answer_ends_as_the_policy_s_own_would(renderer: ChatRenderer) -> None:
    (episode,) = demonstrations(config(episodes=1), renderer)
    assert {turn.completion_ids[-1] for turn in episode.turns} == {renderer.end_id}


def test_labels_are_the_chosen_tokens_and_nothing_else(renderer: ChatRenderer) -> None:
    examples = dataset(training_samples(config(episodes=3, steps=1, batch_size=4), renderer))
    assert len(examples) == 4  # what one step of four sequences consumes
    for example in examples:
        chosen = [label for label in example["labels"] if label != -100]
        assert chosen == example["input_ids"][-len(chosen) :]  # history `none`: one answer, at the end
        assert chosen[-1] == renderer.end_id
