"""Rows in the leaderboard's layout: read from a folder, checked, and turned into what a policy sees."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from envs.base import SettingError
from envs.tools.ast_match import TYPES

SAMPLE = Path(__file__).parent / "data"
CATEGORIES = (
    "simple_python",
    "multiple",
    "parallel",
    "parallel_multiple",
    "irrelevance",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
    "live_irrelevance",
    "live_relevance",
)
JSON_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}  # the others are JSON's own


@dataclass(frozen=True, slots=True)
class Row:
    """`chat`: (role, text) of each message. `functions`: as the leaderboard describes them. `truths`: the accepted
    calls, empty where none is judged by its content. `split_by`: rows for which it is equal are in one split."""

    id: str
    category: str
    chat: tuple[tuple[str, str], ...]
    functions: tuple[Mapping[str, Any], ...]
    truths: tuple[Mapping[str, Mapping[str, Any]], ...]
    split_by: str


@lru_cache(maxsize=32)
def read_rows(folder: Path, category: str) -> tuple[Row, ...]:
    """All rows of a category. Raises SettingError for a file that cannot be read, naming it and the row."""
    name = f"BFCL_v4_{category}.json"
    truths: dict[str, Any] = {}
    if "relevance" not in category:
        file = folder / "possible_answer" / name
        truths = {found["id"]: found["ground_truth"] for found in _lines(file, ("id", "ground_truth"))}
    file = folder / name
    return tuple(_row(file, found, category, truths) for found in _lines(file, ("id", "question", "function")))


def _lines(file: Path, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    found = []
    try:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                row = json.loads(line)
                missing = [key for key in keys if not isinstance(row, dict) or key not in row]
                if missing:
                    raise SettingError(f"data: {file}, line {number}: a row needs {', '.join(keys)}")
                found.append(row)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"data: {file} cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise SettingError(f"data: {file}, line {number}: each line must be a JSON object: {error}") from error
    return found


def _row(file: Path, found: dict[str, Any], category: str, truths: dict[str, Any]) -> Row:
    try:
        (messages,) = found["question"]
        chat = tuple((str(message["role"]), str(message["content"])) for message in messages)
        functions = tuple(found["function"])
        for function in functions:
            for parameter in function["parameters"]["properties"].values():
                _check_type(parameter)
        accepted = tuple(truths[found["id"]]) if truths else ()
        names = {function["name"] for function in functions}
        unknown = [name for truth in accepted for name in truth if name not in names]
        if unknown or not chat or chat[-1][0] != "user" or (truths and not accepted):
            raise ValueError(f"answers call {unknown}" if unknown else "it asks for nothing")
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise SettingError(
            f"data: {file}, row {found['id']!r} is not in the leaderboard's layout: {error!r}"
        ) from error
    return Row(str(found["id"]), category, chat, functions, accepted, split_by=str(found["id"]))


def _check_type(parameter: Mapping[str, Any]) -> None:
    kinds = [parameter["type"]]
    if parameter["type"] in ("array", "tuple"):
        kinds.append(parameter["items"]["type"])
    for kind in kinds:
        if kind not in TYPES:
            raise ValueError(f"a parameter has the type {kind!r}; types: {', '.join(TYPES)}")


def as_tool(function: Mapping[str, Any]) -> dict[str, Any]:
    """A function as chat templates and chat APIs take it: its types become those of JSON Schema."""
    described = {key: value for key, value in function.items() if key in ("name", "description")}
    return {"type": "function", "function": described | {"parameters": _schema(function["parameters"])}}


def _schema(described: Any) -> Any:
    """`type` says the type only where a schema stands: a parameter may have that name."""
    schema = dict(described)
    if isinstance(schema.get("type"), str):
        schema["type"] = JSON_TYPES.get(schema["type"], schema["type"])
    if isinstance(schema.get("properties"), Mapping):
        schema["properties"] = {name: _schema(each) for name, each in schema["properties"].items()}
    if isinstance(schema.get("items"), Mapping):
        schema["items"] = _schema(schema["items"])
    return schema
