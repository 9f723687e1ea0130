"""The sections around the learning have defaults under which a run on one machine works."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from configs.run import CheckpointConfig, ServingConfig, WarmstartConfig, WeightsConfig


def test_a_run_starts_replicas_of_its_own_on_a_free_port_and_pulls_from_the_store() -> None:
    assert (ServingConfig().connect, ServingConfig().http_port) == (None, 0)
    assert (WeightsConfig().transport, WeightsConfig().root) == ("store", None)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_noise_is_a_share(share: float) -> None:
    with pytest.raises(ValidationError):
        WarmstartConfig(noise=share)


def test_a_run_keeps_a_checkpoint_to_resume_from() -> None:
    with pytest.raises(ValidationError):
        CheckpointConfig(keep=0)
