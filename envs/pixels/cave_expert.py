"""A scripted player that knows the map: where to walk next on a shortest way, and how far to turn for it."""

from __future__ import annotations

import math

from envs.pixels.cave_world import Cell, World

LOOKAHEAD = 8  # cells of the way that may be cut short by walking straight
SAMPLES_PER_CELL = 5


def heading_to_goal(world: World, x: float, y: float) -> float:
    """Degrees (0 north, 90 east) in which to walk from here."""
    east, south = _next_point(world, x, y)
    return math.degrees(math.atan2(east - x, -(south - y)))


def turn_towards(yaw_deg: float, heading_deg: float) -> float:
    """Degrees to turn to the right, in -180..180.

    >>> turn_towards(350.0, 10.0)
    20.0
    """
    return (heading_deg - yaw_deg + 180.0) % 360.0 - 180.0


def _next_point(world: World, x: float, y: float) -> tuple[float, float]:
    """The farthest point on a shortest way to which one can walk straight."""
    way = _way(world, (int(x), int(y)))
    points = [(east + 0.5, south + 0.5) for east, south in way]
    for point in reversed(points):
        if _is_clear(world, (x, y), point):
            return point
    return points[0]


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
