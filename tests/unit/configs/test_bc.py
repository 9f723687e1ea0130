from __future__ import annotations

import pytest

from configs.base import ConfigError
from configs.bc import ArmTable, BCConfig, ReachTable
from docs.configuration import sections


@pytest.mark.parametrize("name", ["reach_tiny", "arm_reach", "arm_pick"])
def test_the_shipped_configurations_are_some(name: str) -> None:
    config = BCConfig.load(f"configs/bc/{name}.yaml")
    assert config.evaluation.episodes == 100
    assert BCConfig.parse(config.dump()) == config
    assert config.output.name == name


def test_the_kind_of_a_table_may_be_left_out_for_reach() -> None:
    assert isinstance(BCConfig.parse({"table": {"objects": 3}}).table, ReachTable)
    arm = BCConfig.parse({}, ["table.kind=arm", "table.task=pick"]).table
    assert isinstance(arm, ArmTable)
    assert (arm.task, arm.state) == ("pick", "estimated")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("max_delay=16", "must be below chunk_len"),
        ("evaluation.execute_steps=17", "is over chunk_len"),
        ("table.side=30", "must be a multiple of model.patch"),
        ("model.width=30", "multiple of twice the heads"),
        ("trainig.steps=1", "Did you mean 'training'"),
        ("table.kind=arms", "no kind 'arms'. Did you mean 'arm'"),
        ("table.task=pick", "table.task: unknown key"),
    ],
)
def test_a_configuration_that_cannot_be_says_what_to_change(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BCConfig.parse({}, [override])


def test_every_setting_is_described_by_a_sentence() -> None:
    for _, model in sections(BCConfig):
        for name, field in model.model_fields.items():
            assert (field.description or "").endswith("."), f"{model.__name__}.{name}"
