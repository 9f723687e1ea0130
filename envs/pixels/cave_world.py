"""The country of the cave tasks: a map made from random numbers, and how a player walks on it.

Four quarters; a rock with a cave in it, a pond and a fenced pen lie in three of them, with free ground around each,
so that every place can be walked to. A tree stands only where the eight cells around it are free, so it never closes a
way.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from envs.pixels.scene import Scene
from envs.pixels.textures import (
    CAVE_FLOOR,
    GRASS,
    GRAVEL,
    HEDGE,
    PATH,
    PIG,
    ROCK,
    SHEEP,
    STRAW,
    TREE,
    WATER,
)

Cell = tuple[int, int]  # (x, y)
Task = Literal["find_cave", "reach_water", "enter_pen"]
GOALS: dict[Task, int] = {"find_cave": CAVE_FLOOR, "reach_water": WATER, "enter_pen": STRAW}  # tile of the ground

SIZE = 24  # cells along each edge, the hedge around the map included
QUARTERS: tuple[Cell, ...] = ((1, 1), (12, 1), (1, 12), (12, 12))  # north-west corners, 11 cells wide
BOX = 8  # a feature's place within a quarter, 0 to 2 cells from its corner: at least one cell stays free on the inside
TREES, MOST_TRIES = 14, 120
NEAREST_START, FARTHEST_START = 6, 14  # cells to walk from the start to the goal, without diagonals

RADIUS = 0.2  # of the player, who is square, in cells
WATER_REACH = 0.25  # cells from the water at which one stands at it
WALK, SPRINT, SNEAK, WADE = 0.4, 0.5, 0.15, 0.5  # cells per step; WADE is the share of it that is left in water
STEPS_OF_A_WALK = 5  # a step is walked in so many parts, so that a player stops close to a wall


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are; worlds are split into train and held out by it. The rest of a world is detail: the shapes of
    rock, cave and pond, the trees, the animals and the start."""

    quarters: tuple[int, int, int]  # of rock, pond and pen
    offsets: tuple[Cell, Cell, Cell]
    mouth: int  # 0: the cave opens towards the middle of the map in x, 1: in y
    gate: int

    @classmethod
    def draw(cls, rng: random.Random) -> Layout:
        rock, pond, pen = rng.sample(range(4), 3)
        first, second, third = ((rng.randrange(3), rng.randrange(3)) for _ in range(3))
        return cls((rock, pond, pen), (first, second, third), rng.randrange(2), rng.randrange(2))

    def corner(self, feature: int) -> Cell:
        quarter, offset = QUARTERS[self.quarters[feature]], self.offsets[feature]
        return quarter[0] + offset[0], quarter[1] + offset[1]


class World:
    """A map, and the place and heading (degrees, 0 north, 90 east) at which the player starts."""

    def __init__(self, layout: Layout, task: Task, rng: random.Random) -> None:
        self._floor = np.full((SIZE, SIZE), GRASS, np.uint8)
        self._walls = np.zeros((SIZE, SIZE), np.uint8)
        self._fences = np.zeros((SIZE, SIZE), bool)
        self._walls[[0, -1]] = self._walls[:, [0, -1]] = HEDGE
        self._add_rock(layout, rng)
        self._add_pond(layout, rng)
        pen = self._add_pen(layout, rng)
        self._add_trees(rng)
        meadow = [(x, y) for y, x in np.argwhere(self._free()).tolist()]
        places = [*rng.sample(pen, 2), *rng.sample(meadow, 2)]
        animals = tuple((x + 0.5, y + 0.5, rng.choice((PIG, SHEEP))) for x, y in places)
        roofed = (self._floor == CAVE_FLOOR) | (self._floor == GRAVEL)
        self.scene = Scene(self._floor, self._walls, self._fences, roofed, animals)

        self._solid = ((self._walls > 0) | self._fences).tobytes()
        self._ground = self._floor.tobytes()
        self.to_goal = self.distances(self._cells(GOALS[task]))
        starts = [cell for cell in self._cells(GRASS) if NEAREST_START <= self.to_goal.get(cell, 0) <= FARTHEST_START]
        cell = rng.choice(starts)
        self.start = (cell[0] + 0.5, cell[1] + 0.5, float(rng.randrange(0, 360, 15)))

    def _add_rock(self, layout: Layout, rng: random.Random) -> None:
        """A square of rock with rough corners. The mouth of the cave is two cells wide; behind it a random walk
        digs."""
        x0, y0 = layout.corner(0)
        self._walls[y0 : y0 + BOX, x0 : x0 + BOX] = ROCK
        for x, y in ((0, 0), (0, BOX - 1), (BOX - 1, 0), (BOX - 1, BOX - 1)):
            if rng.random() < 0.6:
                self._walls[y0 + y, x0 + x] = 0
        wide = rng.randrange(2, BOX - 3)
        dug: set[Cell] = set()
        for inwards in range(3):
            tile = GRAVEL if inwards == 0 else CAVE_FLOOR
            for aside in (wide, wide + 1):
                cell = _from_the_middle(layout.quarters[0], layout.mouth, inwards, aside)
                self._open((x0 + cell[0], y0 + cell[1]), tile)
                dug.add(cell)
        while len(dug) < 16:
            x, y = cell[0] + (step := rng.choice(_AROUND))[0], cell[1] + step[1]
            if 1 <= x < BOX - 1 and 1 <= y < BOX - 1:
                cell = (x, y)
                dug.add(cell)
                self._open((x0 + x, y0 + y), CAVE_FLOOR)

    def _add_pond(self, layout: Layout, rng: random.Random) -> None:
        x0, y0 = layout.corner(1)
        wide, high, middle = rng.uniform(2.0, 3.6), rng.uniform(2.0, 3.6), BOX / 2 - 0.5
        for y in range(BOX):
            for x in range(BOX):
                if ((x - middle) / wide) ** 2 + ((y - middle) / high) ** 2 < rng.uniform(0.8, 1.1):
                    self._floor[y0 + y, x0 + x] = WATER

    def _add_pen(self, layout: Layout, rng: random.Random) -> list[Cell]:
        """A fence around straw, with a gate of one cell towards the middle of the map. Returns the cells inside."""
        x0, y0 = layout.corner(2)
        cells = [(x, y) for x in range(1, BOX - 1) for y in range(1, BOX - 1)]
        self._fences[y0 : y0 + BOX, x0 : x0 + BOX] = True
        for x, y in cells:
            self._fences[y0 + y, x0 + x] = False
            self._floor[y0 + y, x0 + x] = STRAW
        gate = _from_the_middle(layout.quarters[2], layout.gate, 0, rng.randrange(2, BOX - 2))
        self._fences[y0 + gate[1], x0 + gate[0]] = False
        self._floor[y0 + gate[1], x0 + gate[0]] = PATH
        return [(x0 + x, y0 + y) for x, y in cells]

    def _add_trees(self, rng: random.Random) -> None:
        planted, free = 0, self._free()
        for _ in range(MOST_TRIES):
            x, y = rng.randrange(2, SIZE - 2), rng.randrange(2, SIZE - 2)
            if planted < TREES and free[y, x]:
                self._walls[y, x] = TREE
                free[y - 1 : y + 2, x - 1 : x + 2] = False
                planted += 1

    def _open(self, cell: Cell, tile: int) -> None:
        self._walls[cell[1], cell[0]] = 0
        self._floor[cell[1], cell[0]] = tile

    def _cells(self, tile: int) -> list[Cell]:
        ys, xs = np.nonzero((self._floor == tile) & (self._walls == 0) & ~self._fences)
        return list(zip(xs.tolist(), ys.tolist(), strict=True))

    def _free(self) -> NDArray[np.bool_]:
        """[SIZE, SIZE]: whether a cell and the eight around it are grass on which nothing stands."""
        bare = (self._floor == GRASS) & (self._walls == 0) & ~self._fences
        across = bare[:, :-2] & bare[:, 1:-1] & bare[:, 2:]
        free = np.zeros_like(bare)
        free[1:-1, 1:-1] = across[:-2] & across[1:-1] & across[2:]
        return free

    def distances(self, goals: Iterable[Cell]) -> dict[Cell, int]:
        """Cells to walk from each cell to the nearest goal, without diagonals; cells without a way are left out."""
        found = dict.fromkeys(goals, 0)
        queue = deque(found)
        while queue:
            x, y = queue.popleft()
            for east, south in _AROUND:
                near = (x + east, y + south)
                if near not in found and not self._solid[near[1] * SIZE + near[0]]:
                    found[near] = found[x, y] + 1
                    queue.append(near)
        return found

    def ground(self, x: float, y: float) -> int:
        """The tile of the ground at a point."""
        return self._ground[int(y) * SIZE + int(x)]

    def blocked(self, x: float, y: float) -> bool:
        """Whether a player at this point would stand in a wall or a fence."""
        west, east, north, south = int(x - RADIUS), int(x + RADIUS), int(y - RADIUS) * SIZE, int(y + RADIUS) * SIZE
        solid = self._solid
        return bool(solid[north + west] or solid[north + east] or solid[south + west] or solid[south + east])

    def walk(self, x: float, y: float, east: float, south: float) -> tuple[float, float]:
        """Where one arrives who walks by (east, south). A wall stops the part of the movement that goes into it."""
        east, south = east / STEPS_OF_A_WALK, south / STEPS_OF_A_WALK
        for _ in range(STEPS_OF_A_WALK):
            if east and not self.blocked(x + east, y):
                x += east
            if south and not self.blocked(x, y + south):
                y += south
        return x, y

    def at_goal(self, task: Task, x: float, y: float) -> bool:
        """In the cave, behind its mouth; in the water or close to it; in the pen, behind its gate."""
        reach = WATER_REACH if task == "reach_water" else 0.0
        points = ((x, y), (x - reach, y), (x + reach, y), (x, y - reach), (x, y + reach))
        return any(self.ground(*point) == GOALS[task] for point in points)


_AROUND: tuple[Cell, ...] = ((1, 0), (-1, 0), (0, 1), (0, -1))


def _from_the_middle(quarter: int, axis: int, inwards: int, aside: int) -> Cell:
    """A cell of a box: so many cells inwards from the side that faces the middle of the map in x (axis 0) or y, and so
    many aside from the box's north-west corner."""
    before_middle = (quarter % 2 == 0) if axis == 0 else (quarter < 2)
    inwards = BOX - 1 - inwards if before_middle else inwards
    return (inwards, aside) if axis == 0 else (aside, inwards)
