"""A training configuration is checked as a whole before anything starts."""

from __future__ import annotations

import pytest

from configs.base import PACKAGE_DIR, ConfigError
from configs.training import TrainConfig


@pytest.mark.parametrize("file", sorted(PACKAGE_DIR.glob("train/*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_config_loads_and_survives_a_round_trip(file: str) -> None:
    config = TrainConfig.load(file)
    assert TrainConfig.parse(config.dump()) == config


@pytest.mark.parametrize(
    ("override", "advice"),
    [
        ("sampling.top_p=0.9", "train with top_p 1"),
        ("rollout.max_refills=2 algorithm.drop_uniform_groups=false", "max_refills replaces groups without spread"),
        ("sampling.top_k=5", "top_k 0"),
        ("sampling.min_p=0.1", "min_p 0"),
        ("learner.workers=2", "use ddp, fsdp2 or deepspeed"),
        ("rollout.group_size=1", "at least 2"),
        ("sampling.temperature=0", "above 0"),
        ("weights.transport=nccl", "use 'store', or give the learner a GPU"),
        ("model.tiny.hidden_size=96", "a multiple of 32"),
        ("weights.keep=1", "greater than or equal to 2"),
        ("learner.max_tokens_per_microbatch=100", "the first episode that fills its context could not be trained on"),
    ],
)
def test_settings_that_do_not_fit_say_what_to_do_instead(override: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        TrainConfig.parse({}, override.split())


def test_a_deterministic_run_is_synchronous() -> None:
    with pytest.raises(ConfigError, match=r"set rollout\.max_policy_lag_steps to 0"):
        TrainConfig.parse({"deterministic": True, "rollout": {"max_policy_lag_steps": 1}})


def test_weights_are_pushed_to_gpus_only_from_gpus() -> None:
    config = TrainConfig.parse({"weights": {"transport": "nccl"}, "learner": {"gpus_per_worker": 1}})
    assert config.weights.transport == "nccl"


def test_a_configuration_cannot_be_changed_after_it_was_checked() -> None:
    config = TrainConfig()
    with pytest.raises(ValueError, match="frozen"):
        config.steps = 3  # type: ignore[misc]


@pytest.mark.parametrize("text", ["1e3", "12", "true", "null", "[a]"])
def test_a_name_may_look_like_a_number_or_a_switch(text: str) -> None:
    assert TrainConfig.parse({}, [f"experiment={text}", "steps=3"]).experiment == text
    with pytest.raises(ConfigError, match="steps"):
        TrainConfig.parse({}, [f"experiment={text}", "steps=three"])


def test_an_environment_may_have_a_model_of_its_own() -> None:
    data = {"model": {"source": "a", "overrides": {"bfcl": "b"}}, "env": {"name": "bfcl"}}

    config = TrainConfig.parse(data)

    assert (config.model.source, config.model.overrides) == ("b", {})
    assert TrainConfig.parse(config.dump()) == config
    assert TrainConfig.parse(data, ["env.name=wordle"]).model.source == "a"
    assert TrainConfig.parse(data, ["model.source=c"]).model.source == "c"
