"""A scripted player that knows the map: where to walk next on a shortest way, and how far to turn for it."""

from __future__ import annotations

import itertools
import math

from envs.pixels.cave_world import WALK, Cell, World
from envs.pixels.scene import directions

LOOKAHEAD = 8  # cells of the way that may be cut short by walking straight
SAMPLES_PER_CELL = 5
MOST_ASIDE_DEG = 75.0  # from the straight way, when turns are limited to a grid


def turn_to_goal(world: World, x: float, y: float, yaw_deg: float, grid_deg: float | None = None) -> float:
    """Degrees to turn to the right, in -180..180, before walking on from here.

    With a grid only multiples of it are turned, so that the player walks a little beside the straight way and may meet
    a corner. The turn is then the one after which a step ends nearest to where the way leads.
    """
    point = _next_point(world, x, y)
    exact = _turn(yaw_deg, math.degrees(math.atan2(point[0] - x, -(point[1] - y))))
    if grid_deg is None:
        return exact

    def left_after(turn: float) -> float:
        ahead, _ = directions(yaw_deg + turn)
        return math.dist(world.walk(x, y, WALK * ahead[0], WALK * ahead[1]), point)

    turns = [_turn(0.0, times * grid_deg) for times in range(round(360 / grid_deg))]
    turns = [turn for turn in turns if abs(_turn(turn, exact)) <= MOST_ASIDE_DEG]
    return min(turns, key=lambda turn: (round(left_after(turn), 6), abs(turn)))


def _turn(yaw_deg: float, heading_deg: float) -> float:
    return (heading_deg - yaw_deg + 180.0) % 360.0 - 180.0


def _next_point(world: World, x: float, y: float) -> tuple[float, float]:
    """The farthest point on a shortest way to which, as to all before it, one can walk straight."""
    way = _way(world, (int(x), int(y)))
    points = [(east + 0.5, south + 0.5) for east, south in way]
    clear = list(itertools.takewhile(lambda point: _is_clear(world, (x, y), point), points))
    return clear[-1] if clear else points[0]


def _way(world: World, cell: Cell) -> list[Cell]:
    """The next cells of a shortest way, at most LOOKAHEAD of them; the cell itself at the goal."""
    way: list[Cell] = []
    while world.to_goal[cell] and len(way) < LOOKAHEAD:
        x, y = cell
        near = [(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)]
        cell = min((next_ for next_ in near if next_ in world.to_goal), key=world.to_goal.__getitem__)
        way.append(cell)
    return way or [cell]


def _is_clear(world: World, start: tuple[float, float], end: tuple[float, float]) -> bool:
    east, south = end[0] - start[0], end[1] - start[1]
    samples = max(1, math.ceil(math.hypot(east, south) * SAMPLES_PER_CELL))
    return not any(
        world.blocked(start[0] + east * part / samples, start[1] + south * part / samples)
        for part in range(1, samples + 1)
    )
