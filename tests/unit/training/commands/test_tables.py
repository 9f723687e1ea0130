"""The tables that commands show."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table

from training.cluster.placement import Role
from training.commands import tables
from training.evaluation.closed_loop import Outcome
from training.evaluation.closed_loop import summarize as summarize_loop
from training.evaluation.result import Evaluation, summarize
from training.types import Episode, Task, Turn


def evaluation(name: str, returns: list[float], history: str = "none", outcome: str = "") -> Evaluation:
    episodes = [
        Episode(Task("game", seed), 0, (Turn((1,), (2,), (-0.5,), 0, value),), "completed", value > 0, outcome=outcome)
        for seed, value in enumerate(returns)
    ]
    return summarize(name, "game", history, episodes)


def text(table: Table) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def row(table: Table, name: str) -> str:
    (found,) = (line for line in text(table).splitlines() if name in line)
    return found


def test_each_policy_is_compared_with_the_first_in_the_same_situations() -> None:
    shown = tables.table([evaluation("start", [0.0, 1.0]), evaluation("trained", [1.0, 1.0])], "game")
    assert "+0.500" in row(shown, "trained")
    assert "+" not in row(shown, "start")


def test_outcomes_have_a_column_only_where_a_game_has_them() -> None:
    without = tables.table([evaluation("start", [1.0])], "game")
    with_them = tables.table([evaluation("start", [1.0, 1.0], outcome="win")], "game")
    assert "win / draw / loss" not in text(without)
    assert "2 / 0 / 0" in row(with_them, "start")


def test_the_history_is_told_when_there_are_several() -> None:
    shown = tables.table([evaluation("a", [1.0], "none"), evaluation("a", [1.0], "full")], "game")
    assert "a, none" in text(shown)
    assert "a, full" in text(shown)


def test_paired_differences_count_better_equal_and_worse_situations() -> None:
    first, second = evaluation("first", [0.0, 1.0, 1.0, 0.0]), evaluation("second", [1.0, 1.0, 0.0, 1.0])
    line = row(tables.paired_table([first, second]), "second, none")
    assert "2 / 1 / 1" in line
    assert "+0.250" in line


def test_a_policy_is_paired_with_the_first_of_the_same_history() -> None:
    played = [
        evaluation("first", [0.0], "none"),
        evaluation("first", [1.0], "full"),
        evaluation("second", [1.0], "none"),
        evaluation("second", [1.0], "full"),
    ]
    shown = tables.paired_table(played)
    against = [line.split("│")[2].strip() for line in text(shown).splitlines() if "│ second" in line]
    assert against == ["first, none", "first, full"]


def test_placement_shows_the_range_of_what_may_grow() -> None:
    roles = [Role("policy replica", 1, 4, 4.0, 2, {"serve_node": 1}), Role("learner", 2, 2, 1.0)]
    shown = tables.placement(roles)
    assert "1..4" in row(shown, "policy replica")
    assert "serve_node: 1" in row(shown, "policy replica")
    assert ".." not in row(shown, "learner")


def test_lost_servers_stand_beside_the_success_of_the_others() -> None:
    played = Outcome(0, "played", True, steps=4, answers=2, unreadable=1)
    lost = Outcome(1, "server_lost", False, steps=0, answers=0, unreadable=0, error="unavailable: gone")
    shown = row(tables.closed_loop_table(summarize_loop([played, played, lost]), "robot", "arm"), "robot")
    assert "1.000 [0.342, 1.000]" in shown
    assert [cell.strip() for cell in shown.split("│")[3:7]] == ["2", "1", "4.0", "0.500"]
    nothing = row(tables.closed_loop_table(summarize_loop([lost]), "robot", "arm"), "robot")
    assert [cell.strip() for cell in nothing.split("│")[2:5]] == ["-", "0", "1"]
