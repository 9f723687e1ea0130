"""An alarm travels with its name."""

from __future__ import annotations

import pickle

import pytest

from training.checks.alarms import Alarm, FaultFound
from training.checks.failures import FaultyRollout, RolloutFailed


def test_an_alarm_of_no_known_check_is_refused() -> None:
    with pytest.raises(ValueError, match="is no check"):
        Alarm("agrement", "...")


@pytest.mark.parametrize("kind", [FaultFound, FaultyRollout])
def test_a_fault_keeps_its_alarm_on_the_way_from_another_process(kind: type[FaultFound]) -> None:
    fault = pickle.loads(pickle.dumps(kind(Alarm("agreement", "they differ"))))
    assert type(fault) is kind
    assert fault.alarm == Alarm("agreement", "they differ")
    assert "check «agreement»: they differ" in str(fault)
    assert "on_alarm: warn" in str(fault)


def test_a_faulty_rollout_ends_the_run_as_one_that_failed() -> None:
    assert isinstance(FaultyRollout(Alarm("sibling starts", "...")), RolloutFailed)
