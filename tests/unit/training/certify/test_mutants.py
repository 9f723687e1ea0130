"""The set of faults: enough of them, told apart, and each with what one would see without its check."""

from __future__ import annotations

from pathlib import Path

from docs.faults import PAGE, page
from training.certify.certify import MUTANTS

ROOT = Path(__file__).resolve().parents[4]


def test_there_are_at_least_two_dozen_and_each_has_a_name_of_its_own() -> None:
    assert len({mutant.name for mutant in MUTANTS if not mutant.skipped}) >= 24
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_every_fault_is_run() -> None:
    assert [mutant.name for mutant in MUTANTS if mutant.skipped] == []


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text() == page(), "run `python -m docs.faults`"
    for mutant in MUTANTS:
        assert f"### {mutant.name}\n" in page()


def test_no_configuration_names_the_faults() -> None:
    """They are out of reach of every run: nothing but the certificate imports them."""
    importing = [
        path.relative_to(ROOT)
        for package in ("configs", "envs", "deployments", "training")
        for path in (ROOT / package).rglob("*.py")
        if "training.certify" in path.read_text() and "certify" not in path.parts
    ]
    assert [str(path) for path in importing] == ["training/commands/evaluate.py"]
