"""The rules of TicTacToe by hand-worked cases."""

from __future__ import annotations

import pytest

from envs.base import OpponentNotToMove, OpponentToMove
from envs.games.tictactoe import TicTacToe, _seed_in_split, free_cells
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


def test_the_other_player_sees_the_board_with_its_own_mark_and_plays_what_it_says() -> None:
    env = TicTacToe(opponent="policy")
    own = env.reset(next(seed for seed in range(9) if TicTacToe().reset(seed).text.startswith("You play X")))
    assert env.opponent_observation() is None
    assert env.step("<move>1</move>").terminated is False
    seen = env.opponent_observation()
    assert own.text.startswith("You play X")
    assert seen is not None
    assert seen.text == "You play O.\nX 2 3\n4 5 6\n7 8 9"
    result = env.opponent_step("<move>5</move>")
    assert result.observation.text == "You play X.\nX 2 3\n4 O 6\n7 8 9"
    assert (result.reward, result.info["illegal"], env.opponent_observation()) == (0.0, False, None)


def test_a_game_that_the_other_player_wins_is_lost() -> None:
    env = TicTacToe(opponent="policy")
    env.reset(next(seed for seed in range(9) if TicTacToe().reset(seed).text.startswith("You play X")))
    for own, reply in ((1, 7), (2, 8)):
        env.step(f"<move>{own}</move>")
        env.opponent_step(f"<move>{reply}</move>")
    env.step("<move>4</move>")
    lost = env.opponent_step("<move>9</move>")
    assert (lost.reward, lost.terminated, lost.success, lost.info["outcome"]) == (-1.0, True, False, "loss")


def test_illegal_answers_of_the_other_player_are_asked_for_again_and_forfeit_the_game() -> None:
    env = TicTacToe(opponent="policy")
    env.reset(next(seed for seed in range(9) if TicTacToe().reset(seed).text.startswith("You play X")))
    env.step("<move>1</move>")
    taken, unreadable = env.opponent_step("<move>1</move>"), env.opponent_step("no tag")
    assert (taken.terminated, taken.info["illegal"], unreadable.info["parse_ok"]) == (False, True, False)
    again = env.opponent_observation()
    assert again is not None
    assert again.text == "Illegal move. You play O.\nX 2 3\n4 5 6\n7 8 9"
    forfeited = env.opponent_step("<move>x</move>")
    assert (forfeited.reward, forfeited.terminated, forfeited.info["outcome"]) == (1.0, True, "win")
    assert env.opponent_observation() is None


def test_without_a_limit_the_other_player_forfeits_after_as_many_answers_as_a_game_has_turns() -> None:
    env = TicTacToe(opponent="policy", max_illegal=None, turn_cap=5)
    env.reset(0)
    env.step(f"<move>{free_cells(env._board)[0] + 1}</move>")
    assert [env.opponent_step("?").terminated for _ in range(5)] == [False] * 4 + [True]


def test_who_does_not_answer_for_the_other_player_is_told_what_to_do() -> None:
    env = TicTacToe(opponent="policy")
    env.reset(0)
    with pytest.raises(OpponentNotToMove):
        env.opponent_step("<move>1</move>")
    env.step(f"<move>{free_cells(env._board)[0] + 1}</move>")
    with pytest.raises(OpponentToMove, match="set opponent to random, minimax or mixed"):
        env.step("<move>9</move>")


def test_the_picture_shows_whose_mark_is_in_which_cell() -> None:
    env = TicTacToe()
    env.reset(2)
    env.step("<move>5</move>")
    board = env.render(cell_pixels=10)

    def shown(row: int, column: int) -> str:
        cell = board[10 * row + 2 : 10 * row + 9, 10 * column + 2 : 10 * column + 9].reshape(-1, 3)
        colours = {tuple(pixel) for pixel in cell.tolist()}
        return "X" if (40, 80, 220) in colours else "O" if (200, 50, 40) in colours else " "

    assert board.shape == (30, 30, 3)
    drawn = "".join(shown(row, column) for row in range(3) for column in range(3))
    assert drawn == env._board, "the picture differs from the board"
    assert drawn[4] in "XO"
