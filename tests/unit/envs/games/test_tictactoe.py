"""The rules of TicTacToe by hand-worked cases."""

from __future__ import annotations

from envs.games.tictactoe import TicTacToe, _seed_in_split
from tests.unit.envs.games.experts import success


def test_the_expert_reaches_the_known_best_and_chance_does_not() -> None:
    assert success(TicTacToe(), 0.0, 400) >= 0.93
    assert success(TicTacToe(), 1.0, 400) < 0.55


def test_three_illegal_answers_forfeit_the_game() -> None:
    env = TicTacToe()
    env.reset(0)
    results = [env.step("no tag"), env.step("<move>77</move>"), env.step("<move>x</move>")]
    assert [r.reward for r in results] == [0.0, 0.0, -1.0]
    assert [r.terminated for r in results] == [False, False, True]
    assert results[2].info["outcome"] == "loss"
    assert "Illegal" in results[0].observation.text


def test_without_a_limit_illegal_answers_end_only_at_the_turn_cap() -> None:
    env = TicTacToe(max_illegal=None, turn_cap=5)
    env.reset(0)
    results = [env.step("?") for _ in range(5)]
    assert [r.truncated for r in results] == [False] * 4 + [True]


def test_the_opponent_opens_when_the_agent_is_o() -> None:
    boards = [TicTacToe().reset(seed).text for seed in range(50)]
    for board in boards:
        opponent_has_moved = "X" in board.split("\n", 1)[1]
        assert opponent_has_moved == board.startswith("You play O")
    assert 10 < sum(board.startswith("You play X") for board in boards) < 40


def test_a_perfect_opponent_is_never_beaten() -> None:
    assert success(TicTacToe(opponent="minimax"), 0.0, 20) == 0.0


def test_the_seeds_of_the_splits_never_meet() -> None:
    train = {_seed_in_split(seed, "train") for seed in range(5000)}
    heldout = {_seed_in_split(seed, "heldout") for seed in range(1_000_000, 1_005_000)}
    assert not train & heldout
