"""What all environments share: the splits and the check of their settings."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.base import HELDOUT_SHARE, SettingError, check_choice, in_split, is_heldout


@given(st.text())
def test_a_situation_belongs_to_exactly_one_split(key: str) -> None:
    assert in_split(key, "all")
    assert in_split(key, "train") != in_split(key, "heldout")


def test_about_one_situation_in_eight_is_held_out() -> None:
    share = sum(is_heldout(f"situation {index}") for index in range(8000)) / 8000
    assert share == pytest.approx(1 / HELDOUT_SHARE, abs=0.015)


def test_the_split_is_the_same_in_every_process() -> None:
    """Python's own hash() of text differs from process to process."""
    program = "from envs.base import is_heldout; print([is_heldout(str(i)) for i in range(64)])"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert other.strip() == str([is_heldout(str(index)) for index in range(64)])


def test_a_choice_that_does_not_exist_names_those_that_do() -> None:
    check_choice("opponent", "random", ("random", "minimax"))
    with pytest.raises(SettingError, match="opponent must be one of random, minimax; got 'perfect'"):
        check_choice("opponent", "perfect", ("random", "minimax"))
