"""Training and evaluation play with settings of their own."""

from __future__ import annotations

from configs.training import TrainConfig
from training.rollouts.player import PlaySettings

CONFIG = TrainConfig.parse(
    {
        "env": {"name": "tictactoe", "kwargs": {"split": "train", "opponent": "mixed"}},
        "sampling": {"temperature": 1.2, "max_tokens": 3},
        "evaluation": {"temperature": 0.5},
        "reward": {"weights": {"win": 2.0}},
    }
)


def test_training_plays_as_configured_without_seeds_unless_the_run_is_deterministic() -> None:
    settings = PlaySettings.for_training(CONFIG, 7)
    assert (settings.env, settings.reward, settings.min_weight_version) == (CONFIG.env, CONFIG.reward, 7)
    assert (settings.sampling.temperature, settings.seeded, settings.evaluation) == (1.2, False, False)
    assert PlaySettings.for_training(CONFIG.model_copy(update={"deterministic": True})).seeded


def test_evaluation_plays_held_out_situations_with_seeded_requests_and_its_own_temperature() -> None:
    settings = PlaySettings.for_evaluation(CONFIG)
    assert settings.env.kwargs == {"split": "heldout", "opponent": "mixed"}
    assert (settings.sampling.temperature, settings.sampling.max_tokens) == (0.5, 3)
    assert (settings.seeded, settings.evaluation) == (True, True)
