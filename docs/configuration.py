"""Writes docs/configuration.md from the descriptions of the settings: `python -m docs.configuration`."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from configs.base import YamlConfig, kinds_in, model_in
from configs.bc import BCConfig
from configs.serving import ServeConfig
from configs.sweep import SweepConfig
from configs.training import TrainConfig

PAGE = Path(__file__).with_name("configuration.md")
INTRODUCTION = """# Every setting

Written by `python -m docs.configuration` from the descriptions in `configs/`; do not edit it by hand.

A configuration is a YAML file. Settings that it leaves out have their defaults; `extends: other.yaml` (a file beside
it) is read first, and `--set section.key=value` on the command line comes last. An unknown key is an error that names
the nearest known one. `rayward train --config FILE --dry-run` prints all settings as they are resolved.
"""
ROOTS: dict[str, type[YamlConfig]] = {
    "A training run: `rayward train`, files in configs/train/": TrainConfig,
    "A Serve application: `rayward serve`, files in configs/serve/": ServeConfig,
    "A sweep: `rayward sweep`, files in configs/sweep/": SweepConfig,
    "A robot policy from demonstrations: `rayward bc`, files in configs/bc/": BCConfig,
}
SYMBOLS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def page() -> str:
    """The whole page. A model that two configurations share (the engine) has one table, which both link to."""
    parts = [INTRODUCTION]
    shown: dict[type[BaseModel], str] = {}
    for title, root in ROOTS.items():
        parts.append(f"## {title}\n\n{_sentence(root)}\n")
        for path, model in dict.fromkeys(sections(root)):  # policies of several kinds share most of their sections
            heading = path + _of_kind(model)
            if model not in shown:
                shown[model] = heading
                parts += [f"### {heading}\n\n{_sentence(model)}\n"] if path else []
                parts.append(_table(model))
            else:
                parts.append(f"### {heading}\n\nThe same settings as [{shown[model]}](#{_anchor(shown[model])}).\n")
    return "\n".join(parts)


def _of_kind(model: type[BaseModel]) -> str:
    """What tells a section from others at the same path."""
    field = model.model_fields.get("kind")
    return f" of kind {get_args(field.annotation)[0]}" if field is not None else ""


def sections(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """(path, model) of a configuration and all that it holds, in the order of the fields; the root's path is ''."""
    yield path, model
    for name, field in model.model_fields.items():
        found = [*kinds_in(field.annotation).values()] or [model_in(field.annotation)]
        for inner in filter(None, found):
            yield from sections(inner, f"{path}.{name}" if path else name)


def _table(model: type[BaseModel]) -> str:
    lines = ["| key | type | default | bounds | meaning |", "| --- | --- | --- | --- | --- |"]
    for name, field in model.model_fields.items():
        cells = [f"`{name}`", _kind(field.annotation), _default(field), _bounds(field), field.description or ""]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _kind(annotation: Any) -> str:
    """An annotation in words: `a`, `b` | number or None | list of text."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (types.UnionType, Union):
        return " or ".join(dict.fromkeys(map(_kind, arguments)))
    if origin is list:
        return f"list of {_kind(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(_kind(argument) for argument in arguments)}]"
    if origin is dict:
        return "mapping" if arguments[1] is Any else f"mapping to {_kind(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    words = {
        str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "None", Any: "any",
        Path: "path",
    }  # fmt: skip
    return words[annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "below"
    return "`None`" if value is None else f"`{json.dumps(value, default=str)}`"


def _bounds(field: FieldInfo) -> str:
    bounds = []
    for rule in field.metadata:
        bounds += [f"{sign} {getattr(rule, name):g}" for name, sign in SYMBOLS.items() if hasattr(rule, name)]
        if isinstance(rule, annotated_types.MinLen):
            bounds.append(f"at least {rule.min_length}")
        if getattr(rule, "pattern", None):
            bounds.append(f"`{rule.pattern}`")
    return ", ".join(bounds)


def _sentence(model: type[BaseModel]) -> str:
    return re.sub(r"\s+", " ", (model.__doc__ or "").strip())


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-")


if __name__ == "__main__":
    PAGE.write_text(page())
