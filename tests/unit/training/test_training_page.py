"""docs/training.md: the program on it learns, and the tables name every formula that exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from configs.training import AlgorithmConfig
from training.algorithms.advantages import ADVANTAGES
from training.algorithms.credit import CREDITS
from training.algorithms.losses import LOSSES

PAGE = Path(__file__).resolve().parents[3] / "docs" / "training.md"


def program() -> str:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(block)


def test_the_program_learns_to_answer_with_an_even_token(tmp_path: Path) -> None:
    names: dict[str, Any] = {"folder": tmp_path}

    exec(program(), names)

    returns = names["mean_returns"]
    assert sum(returns[:3]) / 3 < 0.7  # by chance half of the tokens are even
    assert sum(returns[-3:]) / 3 > 0.9


def test_the_program_has_about_forty_lines() -> None:
    lines = [line for line in program().splitlines() if line.strip() and not line.startswith(("from", "import"))]
    assert len(lines) <= 40


@pytest.mark.parametrize(
    "name", [*ADVANTAGES, *CREDITS, *LOSSES, *get_args(AlgorithmConfig.model_fields["off_policy"].annotation)]
)
def test_every_formula_has_a_row(name: str) -> None:
    assert re.search(rf"^\| `{name}`( \(default\))? \|", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("setting", ["advantage", "credit", "loss", "off_policy"])
def test_the_default_is_the_one_that_is_marked(setting: str) -> None:
    table = PAGE.read_text().split(f"| `algorithm.{setting}` |")[1].split("\n\n")[0]
    assert re.findall(r"`(\w+)` \(default\)", table) == [AlgorithmConfig.model_fields[setting].default]


def test_numbers_beside_a_setting_are_its_defaults() -> None:
    from configs.training import TrainConfig

    defaults = TrainConfig().model_dump()
    told = re.findall(r"`([a-z]+)\.([a-z_]+)` \(([\d.e-]+)\)", PAGE.read_text())
    assert len(told) >= 8
    assert [(s, k, float(n)) for s, k, n in told] == [(s, k, float(defaults[s][k])) for s, k, _ in told]
