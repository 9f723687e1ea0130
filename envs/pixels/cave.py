"""Cave: a country seen through the player's eyes, and MineRL BASALT's actions. Find the cave, the water or the pen."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Literal

import numpy as np

from envs.base import Env, EnvSpec, EpisodeOver, Observation, SettingError, Split, StepResult, check_choice, in_split
from envs.pixels import game_actions
from envs.pixels.cave_expert import turn_to_goal
from envs.pixels.cave_map import map_picture
from envs.pixels.cave_world import GOALS, SNEAK, SPRINT, WADE, WALK, Layout, Task, World
from envs.pixels.game_actions import BUTTONS, CAMERA, WORD_DEGREES, BadAction, GameAction
from envs.pixels.ray_caster import ray_caster
from envs.pixels.scene import Pose, directions
from envs.pixels.textures import WATER

INSTRUCTIONS: Mapping[Task, str] = {
    "find_cave": "Find the cave in the grey rock, walk into it, and press ESC inside.",
    "reach_water": "Walk to the blue water.",
    "enter_pen": "Walk through the gate into the fenced pen.",
}
# What MineRL BASALT calls such a task; it has none for the others (its animal pen has to be built).
BASALT_TASKS: Mapping[Task, str] = {"find_cave": "MineRLBasaltFindCave-v0"}

Form = Literal["json", "words"]
STEEPEST_DEG = 60.0  # how far one can look up or down
MOST_TURN_DEG = 60.0  # the expert's turn in one step
STRAIGHT_DEG = 20.0  # the expert walks when it looks at most so far aside
# Keys of an action at random.
MOVES: tuple[list[str], ...] = (["forward"], ["forward", "sprint"], ["back"], ["left"], ["right"], [])
TURNS_OF_A_MOVE = (-2, -1, 0, 1, 2)  # times WORD_DEGREES

_ASKED = {
    "json": (
        'Answer with a JSON object {{"reasoning": a short sentence, "action": {{...}}}} or the action alone. These '
        "keys are 1 when pressed and may be left out: {keys}. The key camera is [pitch, yaw] in degrees by which the "
        "view turns: positive looks down, and right. ESC ends the episode."
    ),
    "words": "Answer <action>W</action> with one to {most} of these words: {words}. A turn is {degrees:g} degrees.",
}


class Cave(Env):
    """Settings: `task` (find_cave, reach_water, enter_pen), `form` of an answer (json, words), `side` of the picture in
    pixels, `max_steps`, `hold_steps` for which one may stand still in the cave instead of pressing ESC, `step_cost`
    taken from the reward of each step, `split` by layout.

    One step turns the view, then moves by 0.4 cells (sprint 0.5, sneak 0.15, half of it in water) on a map of 24 x 24.
    """

    def __init__(
        self,
        task: Task = "find_cave",
        form: Form = "json",
        side: int = 64,
        max_steps: int = 60,
        hold_steps: int = 5,
        step_cost: float = 0.0,
        split: Split = "all",
    ) -> None:
        check_choice("task", task, tuple(GOALS))
        check_choice("form", form, tuple(_ASKED))
        check_choice("split", split, ("all", "train", "heldout"))
        for name, value, least in (("side", side, 8), ("max_steps", max_steps, 1), ("hold_steps", hold_steps, 1)):
            if value < least:
                raise SettingError(f"{name} must be at least {least}, got {value}")
        if not 0 <= step_cost < math.inf:
            raise SettingError(f"step_cost must be a finite number from 0 up, got {step_cost}")
        self._task, self._form, self._side, self._split = task, form, side, split
        self._max_steps, self._hold_steps, self._step_cost = max_steps, hold_steps, step_cost
        self._over = True
        self.spec = self._described()

    def _described(self) -> EnvSpec:
        asked = _ASKED[self._form].format(
            keys=", ".join(BUTTONS),
            words=", ".join(game_actions.WORDS),
            most=game_actions.MOST_WORDS,
            degrees=WORD_DEGREES,
        )
        return EnvSpec(
            name="cave",
            one_line="walk to a cave, a pond or a pen, seeing what the player sees; MineRL BASALT's actions",
            system_prompt=f"You see a game through the eyes of its player, who walks in a country. {asked}",
            action_regex=game_actions.JSON_REGEX if self._form == "json" else game_actions.WORDS_REGEX,
            horizon=self._max_steps,
            best_return=1.0,
            best_success=1.0,
            failure_return=0.0,
            image=True,
            extra={
                "task": self._task,
                "instruction": INSTRUCTIONS[self._task],
                "minerl_task": BASALT_TASKS.get(self._task),
            },
        )

    def reset(self, seed: int) -> Observation:
        rng = random.Random(f"cave/{seed}")
        while True:
            self.layout = Layout.draw(rng)
            if in_split(f"cave/{self.layout}", self._split):
                break
        self.world = World(self.layout, self._task, rng)
        x, y, yaw_deg = self.world.start
        self.pose = Pose(x, y, yaw_deg)
        self._steps = self._held = 0
        self._over = False
        return self._observe()

    def step(self, action: str) -> StepResult:
        """Plays an answer in the environment's form."""
        read = game_actions.from_json if self._form == "json" else game_actions.from_words
        try:
            return self._play(read(action))
        except BadAction:
            return self._play(None)

    def act(self, action: Mapping[str, object]) -> StepResult:
        """Plays an action as MineRL and `/get_action` give it; keys may be missing. Like `step` but for the form."""
        try:
            return self._play(game_actions.full_action(action))
        except BadAction:
            return self._play(None)

    def _play(self, action: GameAction | None) -> StepResult:
        """None: what was answered is no action; the player does nothing."""
        if self._over:
            raise EpisodeOver("the episode is over: call reset")
        self._steps += 1
        before = self.pose
        if action is not None:
            self.pose = self._moved(action)
        there = self.world.at_goal(self._task, self.pose.x, self.pose.y)
        stands = action is not None and (before.x, before.y) == (self.pose.x, self.pose.y)
        self._held = self._held + 1 if there and stands else 0
        left = action is not None and action["ESC"] == 1
        success = there and (self._task != "find_cave" or left or self._held >= self._hold_steps)
        terminated = success or left
        truncated = not terminated and self._steps >= self._max_steps
        self._over = terminated or truncated
        info = {"parse_ok": action is not None, "illegal": action is None}
        return StepResult(self._observe(), float(success) - self._step_cost, terminated, truncated, success, info)

    def _moved(self, action: GameAction) -> Pose:
        """The pose after an action: the view turns, then the player walks. Keys that have no use here do nothing."""
        camera = action[CAMERA]
        assert isinstance(camera, list)
        pitch = min(max(self.pose.pitch_deg + camera[0], -STEEPEST_DEG), STEEPEST_DEG)
        yaw = (self.pose.yaw_deg + camera[1]) % 360.0
        pressed = {name for name in BUTTONS if action[name]}
        ahead, right = directions(yaw)
        forwards = ("forward" in pressed) - ("back" in pressed)
        sideways = ("right" in pressed) - ("left" in pressed)
        east, south = (forwards * ahead[axis] + sideways * right[axis] for axis in (0, 1))
        pace = SNEAK if "sneak" in pressed else SPRINT if "sprint" in pressed and forwards > 0 else WALK
        if self.world.ground(self.pose.x, self.pose.y) == WATER:
            pace *= WADE
        if forwards and sideways:
            pace /= math.sqrt(2)
        x, y = self.world.walk(self.pose.x, self.pose.y, pace * east, pace * south)
        return Pose(x, y, yaw, pitch)

    def _observe(self) -> Observation:
        text = f"{INSTRUCTIONS[self._task]} Steps left: {self._max_steps - self._steps}."
        return Observation(text, ray_caster(self._side).picture(self.world.scene, self.pose))

    def expert_action(self, rng: random.Random, noise: float = 0.0, illegal_noise: float = 0.0) -> str:
        """Turns towards a shortest way and walks it; it knows the map, which the policy does not see. `noise` is the
        share of moves and turns at random, `illegal_noise` the share of ESC, wherever the player is."""
        chance = rng.random()
        if chance < noise:
            return self._answer(rng.choice(MOVES), 0.0, rng.choice(TURNS_OF_A_MOVE) * WORD_DEGREES)
        if chance < noise + illegal_noise:
            return self._answer(["ESC"], 0.0, 0.0)
        pose = self.pose
        if self.world.at_goal(self._task, pose.x, pose.y):
            return self._answer(["ESC"], 0.0, 0.0)
        grid_deg = WORD_DEGREES if self._form == "words" else None
        turn = turn_to_goal(self.world, pose.x, pose.y, pose.yaw_deg, grid_deg)
        turned = min(max(turn, -MOST_TURN_DEG), MOST_TURN_DEG)
        return self._answer(["forward"] if abs(turn - turned) <= STRAIGHT_DEG else [], -pose.pitch_deg, turned)

    def _answer(self, keys: list[str], pitch: float, yaw: float) -> str:
        """An action in the environment's form; words turn by whole steps."""
        if self._form == "json":
            return game_actions.as_json(keys, pitch, yaw)
        names = {key: word for word, key in game_actions.KEYS_OF_WORDS.items()}
        words = [names[key] for key in keys]
        for degrees, less, more in ((yaw, "turn_left", "turn_right"), (pitch, "look_up", "look_down")):
            times = round(degrees / WORD_DEGREES)
            words += [more if times > 0 else less] * abs(times)
        return game_actions.as_words(words[: game_actions.MOST_WORDS])

    def render(self) -> np.ndarray:
        """The map from above with the player on it, [384, 384, 3]; the red arrow points where the player looks."""
        return map_picture(self.world.scene, self.pose)
