"""The certificate in short: every fault is put in once, with few healthy runs, on the replica of the session."""

from __future__ import annotations

from typing import Any

import pytest

from training.certify.certify import MUTANTS, certificate_on, settings_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]  # the whole certificate is in the first one's time


@pytest.fixture(scope="module")
def certificate(stack: Any) -> Any:
    return certificate_on(stack.session, settings_of(stack.storage), stack.session.model, healthy_runs=6)


@pytest.mark.parametrize("mutant", [each for each in MUTANTS if not each.skipped], ids=lambda each: each.name)
def test_a_fault_that_is_put_in_on_purpose_raises_an_alarm(mutant: Any, certificate: Any) -> None:
    row = next(row for row in certificate.faults if row.name == mutant.name)
    assert row.alarmed, "it escaped"
    assert row.outcome.check in mutant.caught_by, row.outcome.message


def test_runs_without_a_fault_raise_none(certificate: Any) -> None:
    assert [row.outcome.message for row in certificate.healthy if row.alarmed] == []
    assert len(certificate.healthy) == 6
