"""An episode in the terminal: shown while it happens, and stopped without a fuss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from envs.games.key_door import KeyDoor
from envs.games.tictactoe import TicTacToe
from envs.pixels.key_door_pixels import KeyDoorPixels
from training.evaluation.play import Watched, enter, play_by_hand


def typed(*lines: str | type[BaseException]) -> Callable[[str], str]:
    """A person who types these lines; an exception stands for Ctrl-D or Ctrl-C."""
    left: Iterator[str | type[BaseException]] = iter(lines)

    def ask(prompt: str) -> str:
        line = next(left)
        if isinstance(line, str):
            return line
        raise line

    return ask


def test_a_game_by_hand_shows_each_turn_and_the_outcome() -> None:
    shown: list[str] = []
    moves = [f"<move>{cell}</move>" for cell in range(1, 10)] * 2
    total = play_by_hand(TicTacToe(max_illegal=None), 1, typed(*moves), shown.append)
    assert any(text.startswith("turn 1: <move>1</move>   reward 0") for text in shown)
    assert f"return {total:g} after" in shown[-1]


def test_what_cannot_be_read_is_said_and_an_empty_line_is_asked_again() -> None:
    shown: list[str] = []
    play_by_hand(TicTacToe(), 0, typed("", "  ", "hello", "<move>77</move>", EOFError), shown.append)
    assert "turn 1: hello   reward 0  (not understood)" in shown[2]
    assert "turn 2: <move>77</move>   reward 0  (not allowed)" in shown[3]


@pytest.mark.parametrize("end", [EOFError, KeyboardInterrupt])
def test_the_end_of_input_and_ctrl_c_stop_a_game(end: type[BaseException]) -> None:
    shown: list[str] = []
    assert play_by_hand(KeyDoor(), 0, typed("<action>up</action>", end), shown.append) == 0.0
    assert shown[-1] == "\nstopped after 1 turns, return 0"


def test_a_watched_game_is_the_same_game_and_pauses_between_turns_only() -> None:
    pauses: list[int] = []
    bare, watched = KeyDoor(max_steps=3), Watched(KeyDoor(max_steps=3), lambda text: None, lambda: pauses.append(1))
    assert watched.reset(4) == bare.reset(4)
    for _ in range(3):
        assert watched.step("<action>up</action>") == bare.step("<action>up</action>")
    assert len(pauses) == 2


def test_the_end_of_input_at_a_pause_stops_like_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt):
        enter(typed(EOFError))()


def test_what_the_policy_sees_as_a_picture_is_drawn_with_its_turn() -> None:
    shown: list[str] = []
    play_by_hand(KeyDoorPixels(), 0, typed("<action>up</action>", EOFError), shown.append, draw=lambda image: "PICTURE")
    assert shown[1] == "PICTURE\nWhat now?"
    assert shown[2].endswith("reward 0\n\nPICTURE\nWhat now?")


def test_a_game_by_hand_can_be_kept_as_a_gif(tmp_path: Path) -> None:
    play_by_hand(
        KeyDoor(), 0, typed("<action>up</action>", "<action>down</action>", EOFError), print, gif=tmp_path / "game.gif"
    )
    assert Image.open(tmp_path / "game.gif").n_frames == 3  # the start and two turns
