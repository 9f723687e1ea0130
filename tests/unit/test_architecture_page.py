"""docs/architecture.md: its map and its layers are those of the sources."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.unit.test_layers import LAYERS, PACKAGES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def subpackages() -> dict[str, str]:
    """Name -> docstring of every package of ours."""
    files = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("__init__.py"))
    docstrings = {file: ast.get_docstring(ast.parse(file.read_text())) or "" for file in files}
    return {
        ".".join(file.parent.relative_to(ROOT).parts): re.sub(r"\s+", " ", text) for file, text in docstrings.items()
    }


def table(heading: str) -> dict[str, str]:
    """First column (in backticks) -> second column of the table under a heading."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `([\w.]+)` \| (.*) \|$", section, re.MULTILINE))


def test_the_map_says_of_each_subpackage_what_its_docstring_says() -> None:
    rows = {name: f"| `{name}` | {text} |" for name, text in subpackages().items()}
    told = {name: f"| `{name}` | {text} |" for name, text in table("The map").items()}
    assert told == rows


@pytest.mark.parametrize("package", PACKAGES)
def test_the_layers_are_those_that_the_layers_test_enforces(package: str) -> None:
    def exists(name: str) -> bool:
        return (ROOT / package / name).is_dir() or (ROOT / package / f"{name}.py").is_file()

    layers = [" ".join(filter(exists, layer.split())) for layer in LAYERS[package]]
    row = f"| `{package}` | {' < '.join(filter(None, layers))} |"
    assert row in PAGE
