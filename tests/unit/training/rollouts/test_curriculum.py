"""The stage of a task depends on its seed and on what was known when it was played, and on nothing else."""

from __future__ import annotations

from collections import Counter
from typing import Any

from configs.curricula import CurriculumConfig
from training.rollouts.buffer import task_at
from training.rollouts.curriculum import Curriculum
from training.types import EpisodeSummary, GroupSummary, Task


def curriculum(lag: int = 0, **order: Any) -> Curriculum:
    stages = [{"name": "easy"}, {"name": "middle"}, {"name": "hard", "env": "key_door"}]
    return Curriculum(CurriculumConfig.model_validate({"stages": stages, "order": order}), "tictactoe", lag)


def tasks(step: int, count: int = 400) -> list[Task]:
    return [task_at("tictactoe", 0, step * count + index) for index in range(count)]


def played(stage: str, success: float, groups: int) -> list[GroupSummary]:
    episodes = tuple(
        EpisodeSummary(0.0, "completed", None, place < 10 * success, 1, 0, 1, (2,), 0, 0.0) for place in range(10)
    )
    return [GroupSummary(Task("tictactoe", index, index, stage), episodes) for index in range(groups)]


def test_a_mixture_plays_every_stage_in_its_share_with_its_own_environment() -> None:
    mixed = curriculum(kind="mixture", weights=[1, 1, 2])
    staged = [mixed.staged(0, task) for task in tasks(0)]
    counts = Counter(task.stage for task in staged)
    assert 150 < counts["hard"] < 250
    assert 60 < counts["easy"] < 140
    assert {task.stage: task.env for task in staged} == {"easy": "tictactoe", "middle": "tictactoe", "hard": "key_door"}


def test_stages_by_steps_begin_when_they_are_told_to() -> None:
    stepped = curriculum(kind="steps", starts=[0, 3, 5])
    assert [stepped.staged(step, Task("tictactoe", 1)).stage for step in range(6)] == [
        "easy", "easy", "easy", "middle", "middle", "hard",
    ]  # fmt: skip


def test_the_next_stage_comes_after_enough_groups_with_enough_success() -> None:
    rising = curriculum(kind="success", advance_at=0.8, window_groups=8, review_share=0.0)
    reached = []
    for step, success in enumerate([0.5, 0.9, 0.9, 0.9, 0.9, 0.9]):
        stage = rising.staged(step, Task("tictactoe", 1)).stage
        reached.append(stage)
        metrics = rising.record(step, played(stage, success, groups=4))
        assert metrics[f"curriculum/{stage}_success"] == success
        assert metrics[f"curriculum/{stage}_groups_total"] == 4.0
    # 0.5 and 0.9 are 0.7 over the window; the second and third step are 0.9; the next stage has a window of its own
    assert reached == ["easy", "easy", "easy", "middle", "middle", "hard"]


def test_earlier_stages_are_played_again_in_their_share() -> None:
    rising = curriculum(kind="success", advance_at=0.5, window_groups=4, review_share=0.25)
    rising.record(0, played("easy", 1.0, 4))
    counts = Counter(rising.staged(1, task).stage for task in tasks(1))
    assert set(counts) == {"easy", "middle"}
    assert 60 < counts["easy"] < 140


def test_what_is_not_known_yet_when_rollouts_run_ahead_decides_nothing() -> None:
    """With a lag of 2, tasks of step 3 start when step 0 is done: later steps may be done or not."""
    early = curriculum(lag=2, kind="success", advance_at=0.8, window_groups=4, review_share=0.0)
    early.record(0, played("easy", 0.5, 4))
    late = curriculum(lag=2, kind="success", advance_at=0.8, window_groups=4, review_share=0.0)
    for step, success in enumerate([0.5, 1.0, 1.0]):
        late.record(step, played("easy", success, 4))
    assert [early.staged(3, task) for task in tasks(3)] == [late.staged(3, task) for task in tasks(3)]
    assert late.reached(4) == 1


def test_a_resumed_run_plays_the_stages_that_it_would_have_played() -> None:
    whole = curriculum(kind="success", advance_at=0.8, window_groups=8, review_share=0.3)
    for step in range(4):
        whole.record(step, played(whole.config.names[whole.reached(step)], 0.9, 4))
    resumed = curriculum(kind="success", advance_at=0.8, window_groups=8, review_share=0.3)
    resumed.begin(3, whole.achieved)
    assert [resumed.staged(3, task) for task in tasks(3)] == [whole.staged(3, task) for task in tasks(3)]
    assert set(resumed.achieved) == {0, 1, 2}, "step 3 is played again"
