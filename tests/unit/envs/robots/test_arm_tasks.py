"""Which tables the seeds give. Needs no simulator."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from envs.robots.arm_tasks import APART, APART_BOWL, MAX_STEPS, TASKS, holds, layout_key, task_of

SEEDS = range(300)


def test_all_tasks_and_both_numbers_of_cubes_occur() -> None:
    drawn = [task_of(seed, "mixed", "all") for seed in SEEDS]
    assert {task.kind for task in drawn} == set(TASKS) == set(MAX_STEPS)
    assert {len(task.layout.objects) for task in drawn} == {2, 3}


def test_the_named_cube_is_the_only_one_of_its_colour() -> None:
    for seed in SEEDS:
        task = task_of(seed, "mixed", "all")
        assert len(task.colours) == len(set(task.colours)) == len(task.layout.objects) >= 2
        assert f" {task.colours[0]} cube" in task.instruction
        assert not any(colour in task.instruction for colour in task.colours[1:])


def test_an_open_gripper_fits_around_every_cube() -> None:
    for seed in SEEDS:
        layout = task_of(seed, "mixed", "all").layout
        cubes = np.array(layout.objects)[:, :2]
        for number, cube in enumerate(cubes):
            others = np.delete(cubes, number, axis=0)
            assert (np.linalg.norm(others - cube, axis=1) >= APART).all()
            assert np.linalg.norm(cube - layout.bowl) >= APART_BOWL


def test_no_layout_of_training_is_held_out() -> None:
    train = {layout_key(task_of(seed, "mixed", "train").layout) for seed in SEEDS}
    heldout = {layout_key(task_of(seed, "mixed", "heldout").layout) for seed in SEEDS}
    assert len(train) > 200
    assert not train & heldout


def test_a_table_does_not_depend_on_the_task_asked_for() -> None:
    for seed in range(20):
        mixed = task_of(seed, "mixed", "all")
        for kind in TASKS:
            single = task_of(seed, kind, "all")
            assert (single.kind, single.colours, single.layout) == (kind, mixed.colours, mixed.layout)


def world(**facts: Any) -> Any:
    """A world of which only these facts are asked."""
    known = {name: (lambda number, value=value: value) for name, value in facts.items()}
    return SimpleNamespace(**known | {"position": facts.get("position")})


def test_reaching_is_being_within_2_5_centimetres() -> None:
    cube = np.array([0.3, 0.0, 0.02])
    assert holds("reach", world(position=cube + np.array([0.0, 0.02, 0.014]), object_position=cube))  # 2.44 cm
    assert not holds("reach", world(position=cube + np.array([0.0, 0.02, 0.016]), object_position=cube))  # 2.56 cm


def test_picking_up_is_holding_at_8_centimetres() -> None:
    high, low = np.array([0.3, 0.0, 0.081]), np.array([0.3, 0.0, 0.079])
    assert holds("pick", world(object_position=high, held=True))
    assert not holds("pick", world(object_position=low, held=True))
    assert not holds("pick", world(object_position=high, held=False))  # thrown up, or balanced on the hand


def test_placing_is_more_than_being_in_the_bowl() -> None:
    assert holds("place", world(placed=True, in_bowl=True))
    assert not holds("place", world(placed=False, in_bowl=True))


@pytest.mark.parametrize("seed", [0, -1, 10**20])
def test_any_integer_is_a_seed(seed: int) -> None:
    assert task_of(seed, "mixed", "train") == task_of(seed, "mixed", "train")
