"""A certificate is passed when nothing escapes and nothing healthy is alarmed."""

from __future__ import annotations

import io

from rich.console import Console

from training.certify.report import Certificate, Row, told
from training.certify.short_run import FAILED, Outcome

CAUGHT = Row("mask shifted", Outcome("agreement", "check «agreement»: they differ", 1, 0.5))
ESCAPED = Row("KL sign", Outcome("", "", 3, 1.0))
SKIPPED = Row("images", None, "none yet")
FINE = Row("seed=1", Outcome("", "", 2, 1.0))
ALARMED = Row("seed=2", Outcome("surprise", "check «surprise»: ...", 2, 1.0))


def test_all_caught_and_none_alarmed_is_passed() -> None:
    whole = Certificate((CAUGHT, SKIPPED), (FINE, FINE))
    assert whole.passed
    assert whole.summary() == "1 of 1 faults caught, 1 skipped; 0 false alarms in 2 healthy runs"


def test_a_fault_that_escapes_is_named() -> None:
    whole = Certificate((CAUGHT, ESCAPED), (FINE,))
    assert not whole.passed
    assert whole.escaped == ["KL sign"]


def test_an_alarm_of_a_healthy_run_is_told_with_its_message() -> None:
    whole = Certificate((CAUGHT,), (FINE, ALARMED))
    assert not whole.passed
    assert told(whole) == ["seed=2: check «surprise»: ..."]


def test_a_fault_that_only_made_its_run_fail_has_escaped() -> None:
    whole = Certificate((Row("mask", Outcome(FAILED, "a sample without a chosen token", 1)),), ())
    assert whole.escaped == ["mask"]
    assert told(whole) == ["mask: a sample without a chosen token"]


def test_the_table_names_the_check_and_what_escaped() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(Certificate((CAUGHT, ESCAPED, SKIPPED), ()).table())
    shown = console.export_text()
    assert "agreement" in shown
    assert "ESCAPED" in shown
    assert "skipped: none yet" in shown


def test_each_row_is_a_line_while_one_waits() -> None:
    assert CAUGHT.line() == "mask shifted: alarm of «agreement», 1 steps, 0.5 s"
    assert FINE.line() == "seed=1: no alarm, 2 steps, 1.0 s"
    assert SKIPPED.line() == "images: skipped, none yet"
