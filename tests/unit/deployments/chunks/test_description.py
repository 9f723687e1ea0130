from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from configs.base import ConfigError
from deployments.chunks.description import TRAIN_CONFIG, ChunkDescription, read_description

STATISTICS = {
    "state": {"kind": "mean_std", "mean": [0.0, 0.0], "std": [1.0, 1.0]},
    "action": {"kind": "quantiles", "low": [0.0], "high": [1.0]},
}
PLAIN: dict[str, Any] = {"action_dim": 1, "statistics": {"arm": STATISTICS}}


def test_a_description_that_was_written_is_read_again(tmp_path: Path) -> None:
    description = ChunkDescription.parse(PLAIN)
    (tmp_path / TRAIN_CONFIG).write_text(json.dumps(description.dump()))
    assert read_description(tmp_path) == description


def test_the_only_statistics_are_the_default_ones_and_of_several_one_must_be_named() -> None:
    assert ChunkDescription.parse(PLAIN).default == "arm"
    two = {**PLAIN, "statistics": {"arm": STATISTICS, "leg": STATISTICS}}
    with pytest.raises(ConfigError, match="name one of arm, leg in default_statistics"):
        ChunkDescription.parse(two)
    assert ChunkDescription.parse({**two, "default_statistics": "leg"}).default == "leg"


def test_the_shape_is_what_whoever_asks_has_to_know() -> None:
    wide = {**STATISTICS, "state": {"kind": "mean_std", "mean": [0.0] * 5, "std": [1.0] * 5}}
    described = {"num_cams": 3, "resolution": [16, 24], "chunk_len": 9, "max_delay": 4, "default_statistics": "arm"}
    shape = ChunkDescription.parse({**PLAIN, **described, "statistics": {"arm": STATISTICS, "leg": wide}}).shape

    assert (shape.cameras, shape.resolution, shape.state_dim, shape.action_dim) == (3, (16, 24), 5, 1)
    assert (shape.horizon, shape.max_delay, shape.statistics) == (9, 4, ("arm", "leg"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolutoin": [8, 8]}, "Did you mean 'resolution'"),
        ({"resolution": [30, 32]}, "multiples of model.patch"),
        ({"action_dim": 40}, "over max_action_dim"),
        ({"action_dim": 2}, "statistics 'arm' have 1 action dimensions, action_dim is 2"),
        ({"max_state_dim": 1}, "2 state dimensions, over max_state_dim"),
        ({"max_delay": 51}, "over chunk_len"),
        ({"default_statistics": "wing"}, "'wing' is none of arm"),
        ({"model": {"width": 30}}, "multiple of twice the heads"),
        ({"statistics": {"arm": {**STATISTICS, "state": {"kind": "mean_std", "mean": [0.0], "std": []}}}}, "one per"),
        ({"statistics": {"arm": {**STATISTICS, "action": {"kind": "quantiles", "low": [1], "high": [0]}}}}, "swap"),
        ({"statistics": {"arm": {**STATISTICS, "state": {"kind": "mean_std", "mean": [0], "std": [-1]}}}}, "negative"),
    ],
)
def test_a_description_that_cannot_be_says_what_to_change(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ChunkDescription.parse({**PLAIN, **change})


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "has no train_config.json"), ("{", "cannot be read"), ("[]", "must hold a JSON object")],
)
def test_a_file_that_is_no_description_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / TRAIN_CONFIG).write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_description(tmp_path)
