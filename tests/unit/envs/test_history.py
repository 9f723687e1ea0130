"""What of the earlier turns a prompt holds, for each strategy."""

from __future__ import annotations

import numpy as np
import pytest

from envs.base import EnvSpec, Observation
from envs.history import STRATEGIES, HistoryUnsupported, make_history

WITH_PAD = EnvSpec("maze", "a maze", "Find the door.", r".*", 5, 1.0, 1.0, supports_scratchpad=True)
WITHOUT_PAD = EnvSpec("board", "a board", "Play.", r".*", 5, 1.0, 1.0)


def see(text: str, note: str | None = None) -> Observation:
    return Observation(text, note=note)


def shape(messages: list[dict[str, object]]) -> list[tuple[object, object]]:
    return [(message["role"], message["content"]) for message in messages]


def test_none_shows_the_present_observation_only() -> None:
    history = make_history("none", WITH_PAD)
    assert shape(history.start("rules", see("one"))) == [("system", "rules"), ("user", "one")]
    assert shape(history.next("up", see("two"))) == [("system", "rules"), ("user", "two")]
    assert not history.append_only


def test_full_only_grows() -> None:
    history = make_history("full", WITH_PAD)
    first = history.start("rules", see("one"))
    second = history.next("up", see("two"))
    third = history.next("down", see("three"))
    assert history.append_only
    assert second[: len(first)] == first
    assert third[: len(second)] == second
    assert shape(third)[2:] == [("assistant", "up"), ("user", "two"), ("assistant", "down"), ("user", "three")]


def test_scratchpad_carries_the_last_note_that_was_written() -> None:
    history = make_history("scratchpad", WITH_PAD)
    start = shape(history.start("rules", see("one")))
    assert "<scratchpad>" in str(start[0][1])  # told in the system prompt
    assert start[1] == ("user", "one")
    assert shape(history.next("<scratchpad>Left wall</scratchpad>", see("two")))[-1] == (
        "user",
        "<scratchpad>Left wall</scratchpad>\ntwo",
    )
    assert shape(history.next("no note", see("three")))[-1] == ("user", "<scratchpad>Left wall</scratchpad>\nthree")
    assert shape(history.next("<scratchpad></scratchpad>", see("four")))[-1] == (
        "user",
        "<scratchpad></scratchpad>\nfour",
    )


def test_the_note_of_one_episode_does_not_reach_the_next() -> None:
    history = make_history("scratchpad", WITH_PAD)
    history.start("rules", see("one"))
    history.next("<scratchpad>old</scratchpad>", see("two"))
    history.start("rules", see("one"))
    assert shape(history.next("up", see("two")))[-1] == ("user", "<scratchpad></scratchpad>\ntwo")


def test_optimal_scratchpad_shows_the_environments_own_note() -> None:
    history = make_history("optimal_scratchpad", WITH_PAD)
    assert shape(history.start("rules", see("one", "key: 1")))[-1] == ("user", "<scratchpad>key: 1</scratchpad>\none")
    assert shape(history.next("up", see("two", "key: 2")))[-1] == ("user", "<scratchpad>key: 2</scratchpad>\ntwo")
    with pytest.raises(HistoryUnsupported, match="gave no note"):
        history.next("up", see("three"))


@pytest.mark.parametrize("strategy", ["none", "full"])
def test_an_empty_system_prompt_makes_no_system_message(strategy: str) -> None:
    assert shape(make_history(strategy, WITH_PAD).start("", see("one"))) == [("user", "one")]


def test_an_image_stands_before_the_text() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    content = make_history("none", WITH_PAD).start("", Observation("one", image))[0]["content"]
    assert [part["type"] for part in content] == ["image", "text"]


def test_names_are_read_in_any_case_and_by_their_aliases() -> None:
    assert type(make_history("NO_HISTORY", WITH_PAD)) is STRATEGIES["none"]
    assert type(make_history("full_history", WITH_PAD)) is STRATEGIES["full"]


def test_what_cannot_be_played_is_refused_by_name() -> None:
    with pytest.raises(HistoryUnsupported, match=r"no history strategy 'all'; strategies: none, full"):
        make_history("all", WITH_PAD)
    for strategy in ("scratchpad", "optimal_scratchpad"):
        with pytest.raises(HistoryUnsupported, match="board has no scratchpad: use history none or full"):
            make_history(strategy, WITHOUT_PAD)


def test_tools_and_an_earlier_chat_open_every_prompt() -> None:
    tool = {"type": "function", "function": {"name": "area"}}
    seen = Observation(
        "three", tools=(tool,), earlier=(("system", "of the row"), ("user", "one"), ("assistant", "two"))
    )
    opening = [
        ("tools", '[{"type": "function", "function": {"name": "area"}}]'),
        ("system", "rules\n\nof the row"),
        ("user", "one"),
        ("assistant", "two"),
    ]
    history = make_history("none", WITHOUT_PAD)
    assert shape(history.start("rules", seen)) == [*opening, ("user", "three")]
    assert shape(history.next("up", see("four"))) == [*opening, ("user", "four")]
    assert shape(make_history("full", WITHOUT_PAD).start("", Observation("x", earlier=(("system", "s"),)))) == [
        ("system", "s"),
        ("user", "x"),
    ]
