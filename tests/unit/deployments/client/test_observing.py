"""What all clients take."""

import numpy as np

from deployments.client.observing import Seen


def test_every_observation_has_an_id_of_its_own_and_the_time_at_which_it_was_taken() -> None:
    first, second = Seen(images=[]), Seen(images=[])

    assert first.request_id != second.request_id
    assert first.taken_unix_s > 1_600_000_000


def test_a_state_may_be_any_sequence_of_numbers_or_missing() -> None:
    assert Seen(images=[], state=(1, 2)).state_list() == [1, 2]
    assert Seen(images=[], state=np.array([1.5])).state_list() == [1.5]
    assert Seen(images=[]).state_list() == []
