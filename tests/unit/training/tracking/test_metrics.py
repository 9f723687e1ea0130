"""Every metric is listed with its meaning; those of the rollouts by hand."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from training.rollouts.packed import pack
from training.tracking.metrics import MEANING, rollout_metrics
from training.types import Episode, Group, GroupSummary, Task, Turn

ROOT = Path(__file__).resolve().parents[4]


def turn(reward: float, tokens: int = 1, illegal: bool = False) -> Turn:
    return Turn((1, 2), (3,) * tokens, (-0.5,) * tokens, 0, reward, illegal=illegal)


def group(*returns: float, counts: dict[str, int] | None = None) -> GroupSummary:
    task = Task("game", 7)
    episodes = tuple(
        Episode(task, sibling, (turn(value),), "completed", success=value > 0, episode_s=2.0)
        for sibling, value in enumerate(returns)
    )
    return pack(Group(task, episodes), counts or {})[0]


def test_rollout_metrics_by_hand() -> None:
    metrics = rollout_metrics([group(1.0, 0.0), group(-1.0, -1.0)])

    # returns 1, 0, -1, -1: mean -0.25, squared deviations 1.5625 + 0.0625 + 2 * 0.5625 = 2.75, over 4
    assert metrics["rollout/return"] == -0.25
    assert metrics["rollout/return_std"] == pytest.approx((2.75 / 4) ** 0.5)
    assert metrics["rollout/success"] == 0.25
    assert metrics["rollout/uniform_groups"] == 0.5  # the second one
    assert metrics["rollout/episode_s"] == 2.0


def test_shares_of_turns_and_tokens_are_over_all_turns_of_the_step() -> None:
    task = Task("game", 7)
    long = Episode(
        task, 0, (turn(0.0, 2), turn(0.0, 2), turn(0.0, 2, illegal=True)), "truncated", truncation="turn_cap"
    )
    short = Episode(task, 1, (turn(1.0, 6),), "completed")

    metrics = rollout_metrics([pack(Group(task, (long, short)), {})[0]])

    assert metrics["rollout/turns"] == 2.0
    assert metrics["rollout/illegal"] == 0.25
    assert metrics["rollout/truncated"] == metrics["rollout/truncated_turn_cap"] == 0.5
    assert metrics["rollout/truncated_context_full"] == 0.0
    assert metrics["rollout/completion_tokens"] == 3.0
    assert metrics["rollout/tokens_total"] == 12.0


def test_what_went_wrong_is_added_up_over_the_groups() -> None:
    lost = {"retries_infra_failed": 2, "groups_replayed_NodeDiedError": 1}
    metrics = rollout_metrics([group(1.0, 0.0, counts=lost), group(1.0, 0.0, counts={"retries_infra_failed": 1})])

    assert metrics["rollout/retries_infra_total"] == 3.0
    assert metrics["rollout/groups_replayed_total"] == 1.0
    assert metrics["rollout/retries_env_total"] == 0.0


def test_a_step_without_groups_has_metrics_too() -> None:
    assert rollout_metrics([])["rollout/return"] == 0.0


def test_every_metric_that_the_code_writes_is_listed() -> None:
    """Looks for text of the form area/quantity in all modules of training, and at what the rollouts give."""
    written = set(rollout_metrics([group(1.0, 0.0)]))
    for file in (ROOT / "training").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                written |= set(re.findall(r"^(?:rollout|train|eval)/[a-z_]*[a-z]$", node.value))
    assert {"train/loss", "rollout/return", "eval/success"} <= written
    assert written - set(MEANING) == set()


def test_every_listed_metric_has_an_area_and_a_meaning() -> None:
    for name, meaning in MEANING.items():
        assert re.fullmatch(r"(rollout|train|eval|curriculum)/(NAME_)?[a-z0-9_]+|reward/NAME", name)
        assert meaning
