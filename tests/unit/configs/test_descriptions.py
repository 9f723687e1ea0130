"""Every setting says what it means, is read by something, and stands in the generated manual."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from configs.base import Strict
from configs.serving import ServeConfig
from configs.sweep import SweepConfig
from configs.training import TrainConfig
from docs.configuration import PAGE, page, sections

ROOT = Path(__file__).resolve().parents[3]
FIELDS = sorted(
    {
        (model, name)
        for root in (TrainConfig, ServeConfig, SweepConfig)
        for _, model in sections(root)
        for name in model.model_fields
    },
    key=lambda pair: (pair[0].__name__, pair[1]),
)


def names_read() -> set[str]:
    """Attributes that any module of ours reads."""
    files = [file for package in ("configs", "deployments", "training") for file in (ROOT / package).rglob("*.py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    return {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}


@pytest.mark.parametrize(("model", "name"), FIELDS, ids=lambda value: getattr(value, "__name__", value))
def test_every_setting_is_described_by_a_sentence(model: type[Strict], name: str) -> None:
    description = model.model_fields[name].description or ""
    assert description.endswith("."), f"{model.__name__}.{name}: {description!r}"
    assert not description[0].islower(), f"{model.__name__}.{name}: {description!r}"


def test_every_section_says_what_it_is_for() -> None:
    assert not [model.__name__ for model, _ in FIELDS if not (model.__doc__ or "").strip()]


def test_every_setting_is_read_somewhere() -> None:
    used = names_read()
    assert not [f"{model.__name__}.{name}" for model, name in FIELDS if name not in used]


def test_the_manual_is_what_the_descriptions_say() -> None:
    assert PAGE.read_text() == page(), "run: python -m docs.configuration"
