"""Histories become training sequences."""

from __future__ import annotations

from tests.unit.training.rollouts.players import TASK, player
from training.rendering.renderer import ChatRenderer
from training.rollouts.episode import run_episode
from training.rollouts.samples import episode_samples
from training.types import Episode, Task, Turn


def test_turns_that_extend_each_other_are_one_sequence_with_the_context_masked() -> None:
    turns = (
        Turn((5, 6), (8, 2), (-0.1, -0.2), 3, 0.0),
        Turn((9,), (7,), (-0.3,), 4, 1.0, extends=True),
        Turn((5,), (2,), (-0.4,), 4, 1.0),
    )
    first, second = episode_samples(Episode(Task("e", 0), 0, turns, "completed"), 0.5, 0)
    assert tuple(first.token_ids_T) == (5, 6, 8, 2, 9, 7)
    assert tuple(first.mask_T) == (0, 0, 1, 1, 0, 1)
    assert tuple(first.sampler_logp_T) == (0, 0, -0.1, -0.2, 0, -0.3)
    assert first.weight_version == 3
    assert tuple(second.token_ids_T) == (5, 2)


async def test_a_full_history_is_one_sequence_and_no_history_one_a_turn(renderer: ChatRenderer) -> None:
    full = await run_episode(player(renderer, history="full"), TASK, 0)
    (sample,) = episode_samples(full, 0.5, 0)
    assert sample.chosen == sum(len(turn.completion_ids) for turn in full.turns)
    none = await run_episode(player(renderer), TASK, 0)
    assert len(episode_samples(none, 0.5, 0)) == len(none.turns)
