"""Opponents of self-play: which past version of the policy plays the other side, and that a resume finds the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from configs.rollouts import SelfPlayConfig
from deployments.storage.tensors import tensors_of
from deployments.weights.store import WeightStore
from training.run.past import PastVersions


class Run:
    """A run whose weights are a single number: how many updates it has had."""

    def __init__(self, folder: Path, keep: int = 3, goes_back: int = 0) -> None:
        self.folder, self.start = folder, folder / "start"
        self.start.mkdir(parents=True, exist_ok=True)
        save_file({"updates": torch.tensor([0.0])}, self.start / "model.safetensors")
        self.published = WeightStore(str(folder / "published"))
        self.served = WeightStore(str(folder / "served"), keep=2)
        settings = SelfPlayConfig(past_share=1.0, every_steps=2, keep=keep)
        self.past = PastVersions(settings, 7, folder / "past", goes_back, self.published, self.served)

    def opponent(self, version: int | None) -> float | None:
        if version is None:
            return None
        assert self.served.latest() == version
        ((_, value),) = tensors_of(self.served.fetch(version).folder)
        return float(value)

    def steps(self, first: int, last: int) -> Iterator[float | None]:
        """The opponents that follow each step, `last` included."""
        for step in range(first, last + 1):
            version = (self.published.latest() or 0) + 1
            self.published.publish(version, [("updates", torch.tensor([float(step)]))])
            yield self.opponent(self.past.after(step, version))


def test_the_first_opponent_is_the_policy_that_the_run_starts_from(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.opponent(run.past.begin(0, run.start)) == 0.0


def test_opponents_change_every_few_steps_and_are_drawn_from_the_newest_versions(tmp_path: Path) -> None:
    run = Run(tmp_path, keep=3)
    run.past.begin(0, run.start)
    opponents = list(run.steps(1, 40))
    assert all(opponent is None for opponent in opponents[::2])  # after steps 1, 3, 5 ...
    for step, opponent in zip(range(2, 41, 2), opponents[1::2], strict=True):
        assert opponent in range(max(0, step - 4), step + 1, 2)
    ages = {step - opponent for step, opponent in zip(range(2, 41, 2), opponents[1::2], strict=True) if opponent}
    assert ages == {0, 2, 4}


@pytest.mark.parametrize("resumed_at", [4, 5])
def test_a_run_that_is_resumed_has_the_opponents_that_it_would_have_had(tmp_path: Path, resumed_at: int) -> None:
    """It was killed at step 12, after versions of later steps had been kept."""
    whole, killed = Run(tmp_path / "whole"), Run(tmp_path / "killed", goes_back=8)
    expected = [whole.opponent(whole.past.begin(0, whole.start)), *whole.steps(1, 20)]

    killed.past.begin(0, killed.start)
    assert list(killed.steps(1, 12)) == expected[1:13]
    again = Run(tmp_path / "killed", goes_back=8)
    block = resumed_at - resumed_at % 2
    assert again.opponent(again.past.begin(resumed_at, again.start)) == expected[block]
    assert list(again.steps(resumed_at + 1, 20)) == expected[resumed_at + 1 :]


def test_self_play_that_a_resume_switches_on_begins_with_the_start_model(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.opponent(run.past.begin(31, run.start)) == 0.0
    assert next(run.steps(32, 32)) in (0.0, 32.0)
