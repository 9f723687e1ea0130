"""What the benchmarks share: options, bars, the table and the JSON file."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from training.cluster.quiet import quiet_libraries

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """One measured value; `bar` is what it must reach (or stay below), None where it is only reported."""

    name: str
    value: float
    unit: str
    bar: float | None = None
    lower_is_better: bool = False

    @property
    def met(self) -> bool:
        if self.bar is None:
            return True
        return self.value <= self.bar if self.lower_is_better else self.value >= self.bar


def options(description: str) -> argparse.ArgumentParser:
    """The parser of a benchmark; also keeps libraries from printing between its lines."""
    quiet_libraries()
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="exit code 1 when a bar is missed")
    parser.add_argument("--json", type=Path, help="where the figures go")
    return parser


def report(name: str, figures: list[Figure], chosen: argparse.Namespace) -> None:
    """Prints the table, writes the JSON, and ends the process as `--check` asks."""
    table = Table("figure", "value", "unit", "bar", "met", title=name)
    for figure in figures:
        bar = "" if figure.bar is None else f"{'<=' if figure.lower_is_better else '>='} {figure.bar:,.3g}"
        table.add_row(figure.name, f"{figure.value:,.3f}", figure.unit, bar, "yes" if figure.met else "NO")
    Console().print(table)
    target = chosen.json or RESULTS / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps([asdict(figure) | {"met": figure.met} for figure in figures], indent=2) + "\n")
    if chosen.check and not all(figure.met for figure in figures):
        sys.exit(1)
