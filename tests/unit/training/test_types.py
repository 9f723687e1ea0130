"""Invariants of what flows through training: they are checked where an object is made."""

from __future__ import annotations

import dataclasses
import pickle

import pytest

from training.types import Episode, Group, Sample, Task, Turn, prompts

TASK = Task("game", 7)


def turn(reward: float = 0.0, version: int = 0) -> Turn:
    return Turn((5, 6), (8, 2), (-0.1, -0.2), version, reward)


def episode(*turns: Turn, sibling: int = 0) -> Episode:
    return Episode(TASK, sibling, turns, "completed")


def test_a_turn_has_one_log_probability_per_token_and_at_least_one_token() -> None:
    with pytest.raises(ValueError, match="2 completion tokens but 1 log-probabilities"):
        Turn((5,), (8, 2), (-0.1,), 0, 0.0)
    with pytest.raises(ValueError, match="at least one completion token"):
        Turn((5,), (), (), 0, 0.0)


def test_the_prompt_of_a_turn_that_extends_holds_all_that_came_before() -> None:
    turns = (
        Turn((5, 6), (8,), (-0.1,), 0, 0.0),
        Turn((9,), (8, 2), (-0.1, -0.1), 0, 0.0, extends=True),
        Turn((4,), (2,), (-0.1,), 0, 0.0, extends=True),
        Turn((1,), (2,), (-0.1,), 0, 0.0),
    )
    assert list(prompts(turns)) == [(5, 6), (5, 6, 8, 9), (5, 6, 8, 9, 8, 2, 4), (1,)]


def test_a_return_is_the_sum_of_the_rewards() -> None:
    assert episode(turn(0.5), turn(-1.0)).episode_return == -0.5


@pytest.mark.parametrize("end", ["env_failed", "infra_failed"])
def test_a_failure_has_no_return_and_joins_no_group(end: str) -> None:
    """A failure is never a zero reward."""
    failed = Episode(TASK, 0, (turn(),), end, error="it broke")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"ended as {end} has no return"):
        _ = failed.episode_return
    with pytest.raises(ValueError, match=rf"finished episodes only, not {end} \(it broke\)"):
        Group(TASK, (failed,))


def test_an_episode_is_truncated_if_and_only_if_a_limit_is_named() -> None:
    assert Episode(TASK, 0, (turn(),), "truncated", truncation="turn_cap").ok
    with pytest.raises(ValueError, match="truncated cannot have truncation None"):
        Episode(TASK, 0, (turn(),), "truncated")
    with pytest.raises(ValueError, match="completed cannot have truncation 'turn_cap'"):
        Episode(TASK, 0, (turn(),), "completed", truncation="turn_cap")


def test_a_group_holds_siblings_of_one_task() -> None:
    stranger = Episode(Task("game", 8), 1, (turn(),), "completed")
    with pytest.raises(ValueError, match="in the group of"):
        Group(TASK, (episode(turn()), stranger))
    with pytest.raises(ValueError, match="at least one episode"):
        Group(TASK, ())


def test_a_group_is_as_old_as_its_oldest_token() -> None:
    group = Group(TASK, (episode(turn(version=5), turn(version=4)), episode(turn(version=3), sibling=1)))
    assert group.oldest_version == 3


@pytest.mark.parametrize(
    ("mask", "logp", "problem"),
    [
        ((0, 1), (0.0,), "lengths differ: 2 tokens, 2 mask, 1 log-probabilities"),
        ((1, 1), (0.0, 0.0), "the first token has no context"),
        ((0, 0), (0.0, 0.0), "trains nothing"),
    ],
)
def test_a_sample_that_cannot_train_is_refused(mask: tuple[int, ...], logp: tuple[float, ...], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Sample((5, 8), mask, logp, 1.0)


def test_a_sample_counts_its_chosen_tokens() -> None:
    assert Sample((5, 6, 8, 2), (0, 0, 1, 1), (0.0, 0.0, -0.1, -0.2), 0.5).chosen == 2


def test_what_was_made_cannot_be_changed() -> None:
    for made in (TASK, turn(), episode(turn()), Group(TASK, (episode(turn()),))):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, dataclasses.fields(made)[0].name, None)


def test_a_sample_has_an_advantage_for_all_its_tokens_or_for_each() -> None:
    assert Sample((1, 2), (0, 1), (0.0, -0.1), (0.0, 0.5)).chosen == 1
    with pytest.raises(ValueError, match="3 advantages for 2 tokens"):
        Sample((1, 2), (0, 1), (0.0, -0.1), (0.0, 0.5, 0.5))


def test_a_task_of_a_checkpoint_from_before_curricula_has_no_stage() -> None:
    """Pickled, it is its fields in their order: without the stage, a waiting group could not be sent on."""
    task = Task.__new__(Task)
    task.__setstate__(["game", 7, 3])
    assert task == Task("game", 7, 3, stage="")
    staged = Task("game", 7, 3, "hard")
    assert pickle.loads(pickle.dumps(task)) == task
    assert pickle.loads(pickle.dumps(staged)) == staged
