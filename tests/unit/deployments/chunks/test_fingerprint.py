"""Two questions are the same when their answer depends on the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from deployments.chunks.fingerprint import fingerprint
from tests.unit.deployments.chunks.cases import committed, request


def test_all_that_an_answer_depends_on_is_in_its_fingerprint() -> None:
    plain = request("r", committed=committed())
    changes: list[dict[str, Any]] = [
        {"request_id": "s"},
        {"images": 255 - plain.images},
        {"image_mask": ~plain.image_mask},
        {"state": plain.state + 1},
        {"prompt": "another"},
        {"committed": None},
        {"committed": committed(delay=2)},
        {"committed": committed(seed=9)},
        {"noise_seed": 5},
        {"statistics": "default"},
        {"min_weight_version": 1},
    ]
    prints = {fingerprint(replace(plain, **change)) for change in changes}
    assert len(prints) == len(changes)
    assert fingerprint(plain) not in prints
    later = replace(plain, images=np.ascontiguousarray(plain.images), deadline_s=1.0)
    assert fingerprint(later) == fingerprint(plain), "a second try has less time left"
