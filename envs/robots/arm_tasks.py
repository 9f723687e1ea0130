"""What the arm is asked to do: the three tasks, the tables they begin on, and when they are solved."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from envs.base import Split, in_split
from envs.robots.arm_world import ArmWorld, Layout

TASKS = {
    "reach": "reach the {} cube",
    "pick": "pick up the {} cube",
    "place": "put the {} cube in the bowl",
}
MAX_STEPS = {"reach": 40, "pick": 60, "place": 100}
HOLD_STEPS = {"reach": 5, "pick": 3, "place": 3}  # a task is solved once its condition has held for so many steps
COLOUR_NAMES = ("blue", "green", "red", "yellow")
REACH_TOLERANCE = 0.025  # metres from the gripper's point to the object's centre
PICK_HEIGHT = 0.08  # metres from the table to the object's centre

NEAR, WIDE = (0.20, 0.40), (-0.24, 0.24)  # x and y of cubes and bowl
HAND = ((0.24, 0.34), (-0.08, 0.08), (0.16, 0.24))
APART, APART_BOWL = 0.10, 0.13  # between centres: an open finger fits everywhere
CELL = 0.04  # metres; layouts are told apart by the cells in which cubes and bowl are


@dataclass(frozen=True, slots=True)
class Task:
    """One episode's task. `kind` is a name in TASKS, `colours` those of the objects; the first object is the named
    one."""

    kind: str
    colours: tuple[str, ...]
    layout: Layout

    @property
    def instruction(self) -> str:
        return TASKS[self.kind].format(self.colours[0])


def task_of(seed: int, kind: str, split: Split) -> Task:
    """The task of a seed, `kind` mixed: any. The table of a seed does not depend on the kind."""
    rng = random.Random(f"arm/{seed}")
    drawn = rng.choice(sorted(TASKS))
    count = rng.choice((2, 3))
    colours = tuple(rng.sample(COLOUR_NAMES, count))
    while True:
        layout = Layout(
            objects=tuple((*_place(rng), rng.uniform(-np.pi / 4, np.pi / 4)) for _ in range(count)),
            bowl=_place(rng),
            hand=tuple(rng.uniform(*limits) for limits in HAND),  # type: ignore[arg-type]
        )
        if _apart(layout) and in_split(layout_key(layout), split):
            return Task(drawn if kind == "mixed" else kind, colours, layout)


def holds(kind: str, world: ArmWorld) -> bool:
    """Whether the task's condition holds now, for object 0."""
    if kind == "reach":
        return float(np.linalg.norm(world.position - world.object_position(0))) <= REACH_TOLERANCE
    if kind == "pick":
        return bool(world.object_position(0)[2] >= PICK_HEIGHT) and world.held(0)
    return world.placed(0)


def layout_key(layout: Layout) -> str:
    """What the splits are told apart by."""
    places = [(x, y) for x, y, _ in layout.objects] + [layout.bowl]
    return f"arm/{[(int((x - NEAR[0]) // CELL), int((y - WIDE[0]) // CELL)) for x, y in places]}"


def _place(rng: random.Random) -> tuple[float, float]:
    return rng.uniform(*NEAR), rng.uniform(*WIDE)


def _apart(layout: Layout) -> bool:
    cubes = np.array([(x, y) for x, y, _ in layout.objects])
    between = np.linalg.norm(cubes[:, None] - cubes, axis=2)[np.triu_indices(len(cubes), 1)]
    to_bowl = np.linalg.norm(cubes - layout.bowl, axis=1)
    return bool(between.min() >= APART and to_bowl.min() >= APART_BOWL)
