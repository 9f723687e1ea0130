"""With which weight version a run starts: the first answers must come from its own policy."""

from __future__ import annotations

import pytest

from training.run.process import FirstVersion, first_version


@pytest.mark.parametrize(
    ("step", "base", "latest", "replicas_hold_start", "expected"),
    [
        (0, 0, None, True, FirstVersion(0, publish=False)),  # replicas of its own, fresh
        (0, 0, None, False, FirstVersion(1, publish=True)),  # joined: they serve some other model as version 0
        (0, 0, 7, False, FirstVersion(8, publish=True)),  # joined: an earlier run published up to 7
        (0, 2, 2, True, FirstVersion(3, publish=True)),  # after an evaluation published version 2
        (5, 0, None, True, FirstVersion(0, publish=True)),  # resumed with a fresh store: version 5
        (5, 0, 9, True, FirstVersion(5, publish=True)),  # restarted from step 5 after version 9: version 10
    ],
    ids=["own", "joined", "joined after another", "after an evaluation", "resumed", "restarted"],
)
def test_the_first_version_is_above_all_published_ones_and_is_published_unless_the_replicas_hold_it(
    step: int, base: int, latest: int | None, replicas_hold_start: bool, expected: FirstVersion
) -> None:
    assert first_version(step, base, latest, replicas_hold_start) == expected
