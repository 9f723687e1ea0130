"""Rows made by a program, in the leaderboard's layout: for models that are too small for its own. The same on every
machine; all functions of a row are in one split, so that held-out ones are new to the policy."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

from envs.base import is_heldout
from envs.tools.rows import Row

CATEGORIES = ("simple_python", "multiple", "irrelevance")
VERBS = ("set", "start", "stop", "open", "close", "check", "move", "clean")
THINGS = ("lamp", "door", "fan", "oven", "radio", "heater", "blind", "robot", "camera", "pump", "gate", "clock")
ROOMS = ("kitchen", "garage", "garden", "office", "cellar", "attic")
PEOPLE = ("Ann", "Bob", "Eva", "Jan", "Kim", "Leo")
PARAMETERS: dict[str, dict[str, Any]] = {
    "room": {"type": "string", "description": "a room"},
    "user": {"type": "string", "description": "a name"},
    "level": {"type": "integer", "description": "0 to 9"},
    "minutes": {"type": "integer", "description": "0 to 9"},
}
ROWS_OF_EACH = 8  # of each function and category


@lru_cache(maxsize=8)
def generated_rows(category: str) -> tuple[Row, ...]:
    """`ROWS_OF_EACH` rows for each of the 96 functions. With one function (simple_python), with two of which one fits
    (multiple), with one that does not fit (irrelevance)."""
    names = [f"{verb}_{thing}" for verb in VERBS for thing in THINGS]
    rng = random.Random(category)
    return tuple(_row(category, name, names, index, rng) for name in names for index in range(ROWS_OF_EACH))


def _row(category: str, name: str, names: list[str], index: int, rng: random.Random) -> Row:
    function = _function(name)
    values = {parameter: _value(parameter, rng) for parameter in function["parameters"]["required"]}
    verb, _, thing = name.partition("_")
    wanted = ", ".join(f"{parameter} {value}" for parameter, value in values.items())
    heldout = is_heldout(f"bfcl/{name}")
    other = _function(rng.choice([each for each in names if each != name and is_heldout(f"bfcl/{each}") == heldout]))
    functions = {"simple_python": [function], "multiple": [function, other], "irrelevance": [other]}[category]
    rng.shuffle(functions)
    truths = ({name: {parameter: [value] for parameter, value in values.items()}},)
    return Row(
        id=f"generated_{category}_{name}_{index}",
        category=category,
        chat=(("user", f"Please {verb} the {thing}: {wanted}."),),
        functions=tuple(functions),
        truths=() if category == "irrelevance" else truths,
        split_by=name,
    )


def _function(name: str) -> dict[str, Any]:
    """One or two parameters, the same for a name wherever it is."""
    rng = random.Random(name)
    chosen = rng.sample(sorted(PARAMETERS), rng.choice((1, 2)))
    parameters = {"type": "dict", "properties": {each: PARAMETERS[each] for each in chosen}, "required": chosen}
    return {"name": name, "description": name.replace("_", " the "), "parameters": parameters}


def _value(parameter: str, rng: random.Random) -> Any:
    return rng.choice({"room": ROOMS, "user": PEOPLE}.get(parameter, range(10)))
