"""What is counted of answers."""

from deployments.acting.counts import Counts


def test_a_snapshot_is_of_its_moment() -> None:
    counts = Counts()
    counts.intervened("arm", ("clipped", "slowed"))
    counts.intervened("arm", ("clipped",))
    counts.answers["arm", "act"] += 1
    before = counts.snapshot()
    counts.superseded["arm", "act"] += 1

    assert before == {
        "answers": {("arm", "act"): 1},
        "unreadable": {},
        "interventions": {("arm", "clipped"): 2, ("arm", "slowed"): 1},
        "superseded": {},
        "failures": {},
    }
