"""Wordle: find a word of five letters in six guesses, each answered by colours."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from envs.base import (
    Env,
    EnvSpec,
    EpisodeOver,
    Observation,
    RewardPart,
    SettingError,
    Split,
    StepResult,
    check_choice,
    in_split,
)
from envs.parsing import tag_content

LETTERS = 5
GREEN, YELLOW, GREY = "G", "Y", "X"
FOLDER = Path(__file__).parent / "words"
# A list's name: its words, and the further words that may be guessed.
LISTS = {"standard": ("answers.txt", "guesses.txt"), "tiny": ("tiny.txt", "tiny.txt")}
PARTS = ("solved", "partial", "speed", "format")
COLOURS = {GREEN: (83, 141, 78), YELLOW: (201, 180, 88), GREY: (120, 124, 126)}
EMPTY = (235, 235, 235)


def feedback(guess: str, answer: str) -> str:
    """One of G (right letter, right place), Y (the word has it elsewhere) and X for each letter. Greens are given
    first; each other letter of the answer makes at most one yellow, from left to right.

    >>> feedback("eerie", "where")
    'YXYXG'
    """
    left = Counter(right for letter, right in zip(guess, answer, strict=True) if letter != right)
    colours = []
    for letter, right in zip(guess, answer, strict=True):
        if letter == right:
            colours.append(GREEN)
        elif left[letter] > 0:
            left[letter] -= 1
            colours.append(YELLOW)
        else:
            colours.append(GREY)
    return "".join(colours)


class Wordle(Env):
    """Settings: `words` (standard, tiny, or a file with one word a line), `guesses` (a file with further words that may
    be guessed), `turns`, `show` (what an observation shows: the whole board, or only the last guess, for a history that
    holds the others), `marks` (where the colours stand: after the word, or after each letter, for models to which a
    word is one token), `weights` of the reward's parts, `split` by word.

    The reward comes at the end, as the weighted sum of: solved (1), partial (0.2 for each green and 0.1 for each yellow
    letter of the last guess), speed (1 / guesses when solved), format (0.2 times the share of answers that were
    allowed guesses). An answer that is no allowed guess does not count as one; two in a row end the game.
    """

    def __init__(
        self,
        words: str = "standard",
        guesses: str | None = None,
        turns: int = 6,
        show: Literal["board", "last"] = "board",
        marks: Literal["after_word", "after_letters"] = "after_word",
        weights: Mapping[str, float] | None = None,
        split: Split = "all",
    ) -> None:
        check_choice("split", split, ("all", "train", "heldout"))
        check_choice("show", show, ("board", "last"))
        check_choice("marks", marks, ("after_word", "after_letters"))
        if turns < 1:
            raise SettingError(f"turns must be at least 1, got {turns}")
        unknown = sorted(set(weights or {}) - set(PARTS))
        if unknown:
            raise SettingError(f"weights has no part {unknown[0]!r}; parts: {', '.join(PARTS)}")
        self._answers, self._allowed = _lists(words, guesses)
        self._candidates = tuple(word for word in self._answers if in_split(f"wordle/{word}", split))
        if not self._candidates:
            raise SettingError(f"words: none of the {len(self._answers)} words is in the split {split!r}")
        self._weights = dict.fromkeys(PARTS, 1.0) | dict(weights or {})
        self._turns, self._show, self._marks = turns, show, marks
        self._over = True
        self.spec = EnvSpec(
            name="wordle",
            one_line=f"find the word of five letters in {turns} guesses",
            system_prompt=(
                f"Find a secret word of five letters in {turns} guesses. After each guess every letter is marked: "
                "G right place, Y in the word but elsewhere, X not in the word. Answer <guess>word</guess>."
            ),
            action_regex=r"<guess>\[?[a-z]{5}\]?</guess>",
            horizon=2 * turns,
            # Optimal play takes 3.42 guesses (Bertsimas and Paskov 2022, for the original lists).
            best_return=self._weighted({"solved": 1.0, "partial": 1.0, "speed": 1 / 3.42, "format": 0.2}),
            best_success=1.0,
            failure_return=0.0,
            reward_parts={
                "solved": RewardPart(self._weights["solved"]),
                "partial": RewardPart(self._weights["partial"], lost_high=1.0),
                "speed": RewardPart(self._weights["speed"]),
                "format": RewardPart(self._weights["format"], lost_high=0.2),
            },
            supports_scratchpad=True,
        )

    def reset(self, seed: int) -> Observation:
        self._answer = random.Random(seed).choice(self._candidates)
        self._guessed: dict[str, str] = {}  # guess -> its colours, in order
        self._played = 0
        self._refused_in_a_row = 0
        self._refused = 0
        self._over = False
        return self._observe("")

    def step(self, action: str) -> StepResult:
        if self._over:
            raise EpisodeOver("the episode is over: call reset")
        self._played += 1
        written = tag_content(action, "guess")
        guess = (written or "").removeprefix("[").removesuffix("]").strip()
        refusal = self._refusal(guess) if written is not None else "there is no <guess>word</guess> in your answer"
        if refusal:
            self._refused += 1
            self._refused_in_a_row += 1
        else:
            self._refused_in_a_row = 0
            self._guessed[guess] = feedback(guess, self._answer)
        solved = self._answer in self._guessed
        self._over = solved or self._refused_in_a_row == 2 or len(self._guessed) == self._turns
        info: dict[str, Any] = {"parse_ok": written is not None, "illegal": bool(refusal)}
        reward = 0.0
        if self._over:
            parts = self._parts(solved)
            reward = self._weighted(parts)
            info |= {"outcome": "win" if solved else "loss", "rewards": parts, "answer": self._answer}
        return StepResult(self._observe(refusal), reward, self._over, False, solved, info)

    def _refusal(self, guess: str) -> str:
        """Why a guess does not count; empty for an allowed one."""
        if len(guess) != LETTERS:
            return f"{guess[:20]!r} has not five letters"
        if guess not in self._allowed:
            return f"{guess!r} is not in the list of words"
        return f"{guess!r} was guessed before" if guess in self._guessed else ""

    def _parts(self, solved: bool) -> dict[str, float]:
        last = next(reversed(self._guessed.values()), "")
        return {
            "solved": float(solved),
            "partial": round(0.2 * last.count(GREEN) + 0.1 * last.count(YELLOW), 6),
            "speed": 1 / len(self._guessed) if solved else 0.0,
            "format": 0.2 * ((self._played - self._refused) / self._played),
        }

    def _weighted(self, parts: Mapping[str, float]) -> float:
        return sum(self._weights[part] * value for part, value in parts.items())

    def _observe(self, refusal: str) -> Observation:
        shown = list(self._guessed.items())
        if self._show == "last":
            shown = [] if refusal else shown[-1:]
        lines = [self._line(guess, colours) for guess, colours in shown]
        if self._over:
            lines.append("Solved." if self._answer in self._guessed else f"The word was {self._answer}.")
        else:
            wrong = f"{refusal[0].upper()}{refusal[1:]}. Try again. " if refusal else ""
            lines.append(f"{wrong}Guess {len(self._guessed) + 1} of {self._turns}.")
        return Observation("\n".join(lines), note=self._note())

    def _line(self, guess: str, colours: str) -> str:
        """`crane GXXYX`, or `cG rX aX nY eX`."""
        if self._marks == "after_word":
            return f"{guess} {colours}"
        return " ".join(letter + colour for letter, colour in zip(guess, colours, strict=True))

    def _note(self) -> str:
        return "; ".join(f"{guess} {colours}" for guess, colours in self._guessed.items()) or "no guess yet"

    def expert_action(self, rng: random.Random, noise: float = 0.0, illegal_noise: float = 0.0) -> str:
        """A word that agrees with all feedback so far. `noise` draws from the list, `illegal_noise` any letters."""
        drawn = rng.random()
        if drawn < illegal_noise:
            return _tagged("".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(LETTERS)))
        if drawn < illegal_noise + noise:
            return _tagged(rng.choice([word for word in self._answers if word not in self._guessed]))
        agrees = [word for word in self._answers if self._agrees(word)]
        return _tagged(rng.choice(agrees))

    def _agrees(self, word: str) -> bool:
        return all(word != guess and feedback(guess, word) == colours for guess, colours in self._guessed.items())

    def render(self, tile_pixels: int = 36) -> np.ndarray:
        """The board: a row of five coloured tiles for each guess; (turns * tile) x (5 * tile), uint8."""
        from PIL import Image, ImageDraw, ImageFont

        image = Image.new("RGB", (LETTERS * tile_pixels, self._turns * tile_pixels), (255, 255, 255))
        draw = ImageDraw.Draw(image)
        font = ImageFont.load_default(size=tile_pixels * 0.6)
        blank = ("     ", "     ")
        rows = [*self._guessed.items(), *[blank] * (self._turns - len(self._guessed))]
        for row, (guess, colours) in enumerate(rows):
            for column, (letter, colour) in enumerate(zip(guess, colours, strict=True)):
                left, top = column * tile_pixels, row * tile_pixels
                box = (left + 2, top + 2, left + tile_pixels - 3, top + tile_pixels - 3)
                draw.rectangle(box, COLOURS.get(colour, EMPTY))
                middle = (left + tile_pixels / 2, top + tile_pixels / 2)
                draw.text(middle, letter.upper(), (255, 255, 255), font, anchor="mm")
        return np.asarray(image)


def _tagged(word: str) -> str:
    return f"<guess>{word}</guess>"


def _lists(words: str, guesses: str | None) -> tuple[tuple[str, ...], frozenset[str]]:
    """The answers, and all that may be guessed. Raises SettingError."""
    if words in LISTS:
        answers, more = (str(FOLDER / name) for name in LISTS[words])
    else:
        answers, more = words, words
    found = _read("words", answers)
    return found, frozenset(found) | frozenset(_read("guesses", guesses or more))


@lru_cache(maxsize=16)
def _read(setting: str, path: str) -> tuple[str, ...]:
    """The words of a file. Raises SettingError for one that cannot be read, or whose words have not five letters."""
    try:
        found = tuple(dict.fromkeys(Path(path).read_text(encoding="utf-8").lower().split()))
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(LISTS)
        raise SettingError(f"{setting} must be a file with one word a line (or one of {known}): {error}") from error
    wrong = [word for word in found if len(word) != LETTERS or not (word.isascii() and word.isalpha())]
    if wrong or not found:
        what = f"{wrong[0]!r} is none" if wrong else "it has none"
        raise SettingError(f"{setting}: {path} must have words of five letters a to z; {what}")
    return found
