"""The healthy runs differ, and every choice is among them."""

from __future__ import annotations

from itertools import islice

from configs.training import TrainConfig
from training.certify.certify import GAME
from training.certify.healthy import ADVANTAGES, HISTORIES, LOSSES, OFF_POLICY, OTHERS, variations


def test_every_variation_is_a_configuration_and_none_comes_twice() -> None:
    some = list(islice(variations(0), 60))
    for overrides in some:
        TrainConfig.parse(GAME, overrides)
    assert len(set(some)) == len(some)


def test_sixty_of_them_hold_every_choice() -> None:
    held = {override for overrides in islice(variations(0), 60) for override in overrides}
    assert {f"algorithm.loss={loss}" for loss in LOSSES} <= held
    assert {f"algorithm.off_policy={name}" for name in OFF_POLICY} <= held
    assert {f"algorithm.advantage={name}" for name in ADVANTAGES} <= held
    assert {f"env.history={name}" for name in HISTORIES} <= held
    assert {override for others in OTHERS for override in others} <= held


def test_the_same_seed_gives_the_same_runs() -> None:
    assert list(islice(variations(3), 20)) == list(islice(variations(3), 20)) != list(islice(variations(4), 20))
