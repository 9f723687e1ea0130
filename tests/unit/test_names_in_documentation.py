"""Every class, module, setting, metric and file that a page names exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from configs.serving import ServeConfig
from configs.sweep import SweepConfig
from configs.training import TrainConfig
from docs.configuration import sections
from training.tracking.metrics import MEANING

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("configs", "envs", "deployments", "training")
FOLDERS = (*PACKAGES, "benchmarks", "docs", "requirements", "tests")
# CHANGELOG.md is history: it may name what is gone.
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
NAMES_OF_OTHERS = {"CartPole", "InvalidAuthToken", "LeRobotDataset", "Literal", "LoRARequest", "MineRLBasaltFindCave"}
NAMES_IN_EXAMPLES = {"Class", "False", "MyGame", "None", "True"}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def code_spans(page: Path) -> list[str]:
    """What stands in backticks, code blocks left out."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))


@cache
def definitions(module: Path) -> dict[str, ast.AST]:
    """Classes, functions and constants of a module by name, and `Class.method`."""
    found: dict[str, ast.AST] = {}
    for node in ast.parse(module.read_text()).body:
        for name in _names(node):
            found[name] = node
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{name}": inner for inner in node.body for name in _names(inner)}
    return found


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


@cache
def classes() -> set[str]:
    modules = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    return {name for module in modules for name, node in definitions(module).items() if isinstance(node, ast.ClassDef)}


def is_ours(dotted: str) -> bool:
    """Whether `package.module.name` is a package, a module, or what a module defines."""
    parts = dotted.split(".")
    for size in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:size])
        if size == len(parts) and path.is_dir():
            return True
        module = path.with_suffix(".py")
        if module.is_file():
            return size == len(parts) or ".".join(parts[size:]) in definitions(module)
    return False


@cache
def settings() -> set[str]:
    """Every setting as `section.key`, at any depth: `serving.replicas.drain_s` and `replicas.drain_s`."""
    known = set()
    for root in (TrainConfig, ServeConfig, SweepConfig):
        for path, model in sections(root):
            for key in model.model_fields:
                parts = [*filter(None, path.split(".")), key]
                known |= {".".join(parts[i:]) for i in range(len(parts))}
    return known


@each_page
def test_classes_that_are_named_exist(page: Path) -> None:
    spans = [span for span in code_spans(page) if not span.startswith("^")]  # a pattern names no class
    named = {name for span in spans for name in re.findall(r"(?<![\w/.<\"'])[A-Z]\w*[a-z]\w*(?![\w/])", span)}
    assert named - classes() - NAMES_OF_OTHERS - NAMES_IN_EXAMPLES == set()


@each_page
def test_modules_and_what_they_define_exist(page: Path) -> None:
    starts = "|".join(PACKAGES)
    named = {match for span in code_spans(page) for match in re.findall(rf"^(?:{starts})(?:\.\w+)+", span)}
    assert {name for name in named if not is_ours(name) and "my_" not in name and name not in settings()} == set()


@each_page
def test_imports_in_code_blocks_are_of_what_exists(page: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    nodes = [node for block in blocks for node in ast.walk(ast.parse(block)) if isinstance(node, ast.ImportFrom)]
    named = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
    assert {name for name in named if name.split(".")[0] in PACKAGES and not is_ours(name)} == set()


@each_page
def test_settings_that_are_named_exist(page: Path) -> None:
    sections_ = {name.split(".")[0] for name in settings() if "." in name}
    named = {match for span in code_spans(page) for match in re.findall(r"^([a-z_]+\.[a-z_.]*[a-z_])(?=$|: |=)", span)}
    ours = {name for name in named if name.split(".")[0] in sections_ and not is_ours(name)}
    assert {name for name in ours if name not in settings()} == set()


@each_page
def test_metrics_that_are_named_are_listed(page: Path) -> None:
    named = {m for span in code_spans(page) for m in re.findall(r"^(?:rollout|train|eval)/[a-z_]+$", span)}
    assert named - set(MEANING) == set()


@each_page
def test_files_that_are_named_exist(page: Path) -> None:
    folders = "|".join(FOLDERS)
    named = {span for span in code_spans(page) if re.fullmatch(rf"(?:{folders})/[\w./-]*", span)}
    placeholders = ("NAME", "my_")
    missing = {name for name in named if not (ROOT / name).exists() and not any(p in name for p in placeholders)}
    assert missing == set()
