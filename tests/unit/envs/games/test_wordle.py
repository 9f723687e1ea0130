"""The rules of Wordle by hand-worked cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from envs.base import EpisodeOver, SettingError, StepResult
from envs.games.wordle import FOLDER, LISTS, Wordle, feedback
from tests.unit.envs.games.experts import success


@pytest.mark.parametrize(
    ("guess", "answer", "expected"),
    [
        ("crane", "crane", "GGGGG"),
        ("crane", "moldy", "XXXXX"),
        ("speed", "abide", "XXYXY"),  # one e in the answer: the first e is yellow, the second grey
        ("speed", "erase", "YXYYX"),  # two e: both yellow
        ("speed", "steal", "GXGXX"),  # the green e takes the only one
        ("allee", "apple", "GYXXG"),
        ("lolly", "llama", "GXYXX"),  # the green l leaves one l, for the first of the two others
        ("aabbb", "bbaaa", "YYYYX"),
        ("eerie", "there", "YXYXG"),
    ],
)
def test_greens_come_first_and_a_letter_is_marked_as_often_as_the_word_has_it(
    guess: str, answer: str, expected: str
) -> None:
    assert feedback(guess, answer) == expected


def game(tmp_path: Path, *words: str, **settings: object) -> Wordle:
    """The secret word is the first one."""
    (tmp_path / "secret.txt").write_text(words[0])
    (tmp_path / "more.txt").write_text("\n".join(words))
    env = Wordle(str(tmp_path / "secret.txt"), str(tmp_path / "more.txt"), **settings)  # type: ignore[arg-type]
    env.reset(0)
    return env


def play(env: Wordle, *answers: str) -> StepResult:
    for answer in answers:
        result = env.step(answer)
    return result


def tagged(*words: str) -> list[str]:
    return [f"<guess>{word}</guess>" for word in words]


def test_a_solved_game_is_worth_all_its_parts(tmp_path: Path) -> None:
    last = play(game(tmp_path, "crane", "moldy"), *tagged("moldy", "[crane]"))
    assert (last.terminated, last.truncated, last.success, last.info["outcome"]) == (True, False, True, "win")
    assert last.info["rewards"] == {"solved": 1.0, "partial": 1.0, "speed": 0.5, "format": 0.2}
    assert last.reward == pytest.approx(2.7)


def test_six_wrong_guesses_lose_and_the_last_one_counts_in_part(tmp_path: Path) -> None:
    env = game(tmp_path, "crane", "moldy", "fizzy", "buxom", "pushy", "dimly", "caner")
    last = play(env, *tagged("moldy", "fizzy", "buxom", "pushy", "dimly", "caner"))
    assert (last.terminated, last.success, last.info["outcome"]) == (True, False, "loss")
    # caner for crane: c green, the four others yellow
    assert last.info["rewards"] == {"solved": 0.0, "partial": 0.6, "speed": 0.0, "format": 0.2}
    assert last.observation.text.endswith("The word was crane.")
    with pytest.raises(EpisodeOver):
        env.step("<guess>crane</guess>")


@pytest.mark.parametrize("wrong", ["crane", "<guess>cranes</guess>", "<guess>zzzzz</guess>", "<guess>moldy</guess>"])
def test_what_is_no_guess_is_told_once_and_ends_the_game_twice_in_a_row(tmp_path: Path, wrong: str) -> None:
    env = game(tmp_path, "crane", "moldy", "fizzy")
    play(env, *tagged("moldy"))
    first = play(env, wrong)
    assert (first.terminated, first.info["illegal"]) == (False, True)
    assert "Try again. Guess 2 of 6." in first.observation.text
    between = play(env, *tagged("fizzy"))
    assert not between.terminated, "a guess that counts forgives the one before"
    last = play(env, wrong, wrong)
    assert (last.terminated, last.success) == (True, False)
    assert last.info["rewards"]["format"] == pytest.approx(0.2 * 2 / 5)


def test_weights_count_the_parts(tmp_path: Path) -> None:
    env = game(tmp_path, "crane", weights={"speed": 0.0, "partial": 0.5, "solved": 2.0})
    assert play(env, *tagged("crane")).reward == pytest.approx(2.0 + 0.5 + 0.2)


def test_an_observation_shows_the_board_or_the_last_guess(tmp_path: Path) -> None:
    words = ("crane", "moldy", "caner")
    assert play(game(tmp_path, *words), *tagged("moldy", "caner")).observation.text == (
        "moldy XXXXX\ncaner GYYYY\nGuess 3 of 6."
    )
    assert play(game(tmp_path, *words, show="last"), *tagged("moldy", "caner")).observation.text == (
        "caner GYYYY\nGuess 3 of 6."
    )


def test_the_expert_solves_nearly_every_game() -> None:
    assert success(Wordle("tiny"), 0.0, 100) >= 0.95


def test_no_held_out_word_is_ever_trained_on() -> None:
    train, heldout = Wordle(split="train"), Wordle(split="heldout")
    assert not set(train._candidates) & set(heldout._candidates)
    assert len(train._candidates) + len(heldout._candidates) == len(Wordle()._candidates)
    assert len(heldout._candidates) > 200


def test_every_word_that_may_be_asked_for_is_in_the_list_of_guesses() -> None:
    answers, guesses = (set((FOLDER / name).read_text().split()) for name in LISTS["standard"])
    assert answers < guesses
    assert (len(answers), len(guesses)) == (2305, 6420)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"words": "no/such/file"}, "words must be a file with one word a line"),
        ({"weights": {"sped": 1.0}}, "weights has no part 'sped'"),
        ({"turns": 0}, "turns must be at least 1"),
        ({"show": "all"}, "show must be one of board, last"),
    ],
)
def test_a_wrong_setting_says_what_to_do(settings: dict[str, object], told: str) -> None:
    with pytest.raises(SettingError, match=told):
        Wordle(**settings)  # type: ignore[arg-type]


def test_a_list_with_another_length_is_refused_with_its_word(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("crane\nbanana\n")
    with pytest.raises(SettingError, match="'banana' is none"):
        Wordle(str(tmp_path / "words.txt"))


def test_the_picture_has_a_coloured_tile_for_each_letter(tmp_path: Path) -> None:
    env = game(tmp_path, "crane", "caner")
    play(env, *tagged("caner"))
    picture = env.render(20)
    assert picture.shape == (120, 100, 3)
    assert tuple(picture[4, 4]) == (83, 141, 78), "c is green"
    assert tuple(picture[4, 24]) == (201, 180, 88), "a is yellow"


def test_marks_can_stand_after_each_letter_for_models_to_which_a_word_is_one_token() -> None:
    game = Wordle(words="tiny", marks="after_letters")
    plain = Wordle(words="tiny")
    for each in (game, plain):
        each.reset(4)
    word = next(word for word in game._answers if word != game._answer)
    after_letters = game.step(f"<guess>{word}</guess>").observation.text.splitlines()
    after_word = plain.step(f"<guess>{word}</guess>").observation.text.splitlines()
    assert after_word[0].split()[0] == word
    colours = after_word[0].split()[1]
    assert after_letters[0].split() == [letter + colour for letter, colour in zip(word, colours, strict=True)]
    assert after_letters[1:] == after_word[1:]
