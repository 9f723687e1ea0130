"""What an evaluation says of its episodes, by hand."""

from __future__ import annotations

import json

from training.evaluation.result import summarize
from training.types import Episode, Task, Turn


def episode(seed: int, rewards: list[float], outcome: str = "", illegal: int = 0) -> Episode:
    turns = tuple(Turn((1,), (2,), (-0.5,), 0, reward, illegal=index < illegal) for index, reward in enumerate(rewards))
    return Episode(Task("game", seed), 0, turns, "completed", success=sum(rewards) > 0, outcome=outcome)


EPISODES = [episode(1, [0.0, 1.0], "win"), episode(2, [-1.0], "loss", illegal=1), episode(3, [0.0], "draw")]


def test_an_evaluation_by_hand() -> None:
    found = summarize("trained", "game", "none", EPISODES)

    assert (found.success_S, found.returns_S) == ((1.0, 0.0, 0.0), (1.0, -1.0, 0.0))
    assert found.success.value == 1 / 3
    assert found.mean_return.value == 0.0
    assert found.illegal_rate == 0.25  # one of four turns
    assert found.turns == 4 / 3
    assert found.outcomes == {"win": 1, "draw": 1, "loss": 1}


def test_a_game_without_outcomes_has_none() -> None:
    assert summarize("trained", "maze", "full", [episode(1, [1.0])]).outcomes == {}


def test_an_evaluation_can_be_written_as_json() -> None:
    found = summarize("trained", "game", "none", EPISODES)
    written = json.loads(json.dumps(found.to_json()))
    assert written["success"]["value"] == found.success.value
    assert written["returns_S"] == [1.0, -1.0, 0.0]
