"""`rayward envs` says how each environment is played."""

from __future__ import annotations

import json
from typing import Any

import pytest

from envs import registry
from training.commands import app
from training.commands.environments import answers, row_of


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    assert app.run(["envs", "--json"]) == 0
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)}


def test_json_has_every_environment_with_what_it_is_played_with(capsys: pytest.CaptureFixture[str]) -> None:
    rows = listed(capsys)

    assert list(rows) == registry.names()
    assert rows["wordle"]["observation"] == ["text"]
    assert rows["bfcl"]["observation"] == ["text", "tools"]
    assert rows["cave"]["observation"] == ["text", "image"]
    spec = registry.spec("tictactoe")
    row = rows["tictactoe"]
    assert (row["grammar"], row["turns"], row["best_success"]) == (spec.action_regex, spec.horizon, spec.best_success)


def test_the_table_fits_a_narrow_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    assert app.run(["envs"]) == 0

    said = capsys.readouterr().out
    assert all(f"\n{name} " in said for name in registry.names())
    assert "<guess>…</guess>" in said
    assert "gym:NAME" in said
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize(
    ("grammar", "observation", "shown"),
    [
        (r"<move>[1-9]</move>", ["text"], "<move>…</move>"),
        (r"(?s).+", ["text", "tools"], "tool calls"),
        (r"(?s).+", ["text"], "anything"),
        (r"(\{.*\})|<action>.*</action>", ["image"], "JSON or <action>…</action>"),
        (r"(yes|no)", ["text"], "a pattern"),
    ],
)
def test_a_grammar_is_shown_by_its_form(grammar: str, observation: list[str], shown: str) -> None:
    assert answers({"grammar": grammar, "observation": observation}) == shown


def test_an_environment_that_cannot_be_made_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.REGISTRY, "broken", "no_such_module:Game")
    assert row_of("broken") == {"name": "broken", "unusable": "No module named 'no_such_module'"}
