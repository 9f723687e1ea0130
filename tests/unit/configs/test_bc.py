from __future__ import annotations

import pytest

from configs.base import ConfigError
from configs.bc import BCConfig
from docs.configuration import sections


def test_the_shipped_configuration_is_one() -> None:
    config = BCConfig.load("configs/bc/reach_tiny.yaml")
    assert config.evaluation.episodes == 100
    assert BCConfig.parse(config.dump()) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("max_delay=16", "must be below chunk_len"),
        ("evaluation.execute_steps=17", "is over chunk_len"),
        ("table.side=30", "must be a multiple of model.patch"),
        ("model.width=30", "multiple of twice the heads"),
        ("trainig.steps=1", "Did you mean 'training'"),
    ],
)
def test_a_configuration_that_cannot_be_says_what_to_change(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BCConfig.parse({}, [override])


def test_every_setting_is_described_by_a_sentence() -> None:
    for _, model in sections(BCConfig):
        for name, field in model.model_fields.items():
            assert (field.description or "").endswith("."), f"{model.__name__}.{name}"
