"""What a certificate shows, and what it is in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from training.certify.short_run import Outcome
from training.checks.alarms import CHECKS


@dataclass(frozen=True)
class Row:
    """A fault and what caught it, or a healthy run and what it was alarmed by."""

    name: str
    outcome: Outcome | None  # None: skipped
    skipped: str = ""

    def line(self) -> str:
        """For whoever watches."""
        if self.outcome is None:
            return f"{self.name}: skipped, {self.skipped}"
        found = f"alarm of «{self.outcome.check}»" if self.alarmed else "no alarm"
        return f"{self.name}: {found}, {self.outcome.steps} steps, {self.outcome.seconds:.1f} s"

    @property
    def alarmed(self) -> bool:
        return self.outcome is not None and bool(self.outcome.check)


@dataclass(frozen=True)
class Certificate:
    """Faults that were put in, and runs without one."""

    faults: tuple[Row, ...]
    healthy: tuple[Row, ...]

    @property
    def escaped(self) -> list[str]:
        """Also a fault that only made its run fail: what is not named is not found."""
        return [row.name for row in self.faults if row.outcome is not None and row.outcome.check not in CHECKS]

    @property
    def false_alarms(self) -> list[str]:
        return [row.name for row in self.healthy if row.alarmed]

    @property
    def passed(self) -> bool:
        return not self.escaped and not self.false_alarms

    def table(self) -> Table:
        """One row a fault: what caught it, after how many steps (0: before the first)."""
        shown = Table(title="silent faults, each put into a short run on purpose")
        for column in ("fault", "caught by the check", "after steps", "seconds"):
            shown.add_column(column, justify="right" if column in ("after steps", "seconds") else "left")
        for row in self.faults:
            shown.add_row(row.name, *_cells(row))
        return shown

    def summary(self) -> str:
        ran = [row for row in self.faults if row.outcome is not None]
        return (
            f"{len(ran) - len(self.escaped)} of {len(ran)} faults caught, {len(self.faults) - len(ran)} skipped; "
            f"{len(self.false_alarms)} false alarms in {len(self.healthy)} healthy runs"
        )


def _cells(row: Row) -> Sequence[str]:
    if row.outcome is None:
        return f"skipped: {row.skipped}", "", ""
    if row.outcome.check not in CHECKS:
        return f"ESCAPED {row.outcome.check}".strip(), str(row.outcome.steps), f"{row.outcome.seconds:.1f}"
    return row.outcome.check, str(row.outcome.steps), f"{row.outcome.seconds:.1f}"


def told(certificate: Certificate) -> list[str]:
    """What healthy runs were alarmed by, and what made runs with a fault fail, for people."""
    rows = [*certificate.healthy, *(row for row in certificate.faults if row.name in certificate.escaped)]
    return [f"{row.name}: {row.outcome.message}" for row in rows if row.outcome is not None and row.alarmed]
