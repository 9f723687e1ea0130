"""`rayward envs`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from training.commands.options import console

ANYTHING = {"(?s).+", "(?s).*", ".+", ".*"}  # grammars that admit every answer


def list_environments(
    as_json: Annotated[bool, typer.Option("--json", help="as JSON, with the whole grammar of the answers")] = False,
) -> None:
    """Lists the environments: what a policy sees, how it answers, and the best that is known."""
    from envs import registry

    rows = [row_of(name) for name in registry.names()]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    console.print(table(rows))
    for row in rows:
        if "unusable" in row:
            console.print(f"{row['name']} is unusable: {row['unusable']}", markup=False, soft_wrap=True)
    console.print(f"Other libraries' environments: {', '.join(registry.prefixes())} (docs/environments.md)")


def row_of(name: str) -> dict[str, Any]:
    """What a user chooses an environment by, as plain data. One that cannot be made (an installed package's, or one
    without its simulator) must not hide the others: it has `unusable` instead, with the reason."""
    from envs import registry

    try:
        env = registry.make(name)
        first = env.reset(0)
        env.close()
    except Exception as error:
        return {"name": name, "unusable": str(error)}
    spec = env.spec
    seen = ["text"] if first.text else []
    return {
        "name": name,
        "what": spec.one_line,
        "observation": [*seen, *(["image"] if spec.image else []), *(["tools"] if first.tools else [])],
        "grammar": spec.action_regex,
        "turns": spec.horizon,
        "best_success": spec.best_success,
        "best_return": spec.best_return,
        "scratchpad": spec.supports_scratchpad,
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """A row per environment that can be made."""
    shown = Table(box=None, pad_edge=False)
    for column in ("name", "sees", "answers", "turns", "best", "what"):
        shown.add_column(column, no_wrap=column in ("name", "answers"))
    for row in rows:
        if "unusable" in row:
            continue
        shown.add_row(
            row["name"],
            ", ".join(row["observation"]),
            answers(row),
            str(row["turns"]),
            f"{row['best_success']:g}",
            escape(row["what"]),
        )
    shown.caption = "best: share of the episodes that the best known play wins"
    return shown


def answers(row: Mapping[str, Any]) -> str:
    """The form of an answer in a few characters.

    >>> answers({"grammar": "<move>[1-9]</move>", "observation": ["text"]})
    '<move>…</move>'
    """
    grammar: str = row["grammar"]
    if "tools" in row["observation"]:
        return "tool calls"
    tag = re.search(r"<(\w+)>", grammar)
    forms = [*(["JSON"] if r"\{" in grammar else []), *([f"<{tag[1]}>…</{tag[1]}>"] if tag else [])]
    return " or ".join(forms) or ("anything" if grammar in ANYTHING else "a pattern")
