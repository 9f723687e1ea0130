"""MineRL's BASALT tasks as ours: `minerl:MineRLBasaltFindCave-v0`. Minecraft itself, which needs Java 8.

Answers are those of the environment `cave`: keys and a camera, as MineRL has them. The library is imported when an
environment is made. Written for minerl 1.0, whose environments gym makes (step returns four values).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import numpy as np

from envs.base import Env, EnvSpec, EnvUsageError, EpisodeOver, Observation, SettingError, StepResult
from envs.pixels import game_actions
from envs.pixels.game_actions import BUTTONS, CAMERA, BadAction, GameAction
from envs.registry import UnknownEnvironment

# As the competition asked for them (Shah et al., The MineRL BASALT Competition, arXiv 2107.01969).
TASKS: Mapping[str, str] = {
    "MineRLBasaltFindCave-v0": "Find a cave, walk into it, and press ESC inside.",
    "MineRLBasaltMakeWaterfall-v0": "Make a waterfall in a mountainous place, take a good view of it, and press ESC.",
    "MineRLBasaltCreateVillageAnimalPen-v0": "Build an animal pen beside a house of the village, with at least two "
    "animals of one kind in it, and press ESC.",
    "MineRLBasaltBuildVillageHouse-v0": "Build a house in the style of the village, walk through it, and press ESC.",
}
SEEDS = 2**31
IDLE: dict[str, list[Any]] = {}  # task -> games that are running and not played


class MineRLEnv(Env):
    """One of the BASALT tasks.

    Settings: `width` and `height` of the picture in pixels, `max_steps` of the policy, `frame_skip` (how many ticks of
    Minecraft, 20 a second, one answer lasts; the camera turns in the first of them), `esc_is_success`. The tasks have
    no reward and no success of their own: who ends an episode by ESC says to be done, and `esc_is_success` takes that
    for success. A judge (`reward.judge`) reads text, not pictures.
    """

    blocking = True
    isolated = True  # Minecraft may hang; a process of its own is ended alone

    def __init__(
        self,
        name: str,
        /,
        width: int = 160,
        height: int = 90,
        max_steps: int = 600,
        frame_skip: int = 4,
        esc_is_success: bool = False,
    ) -> None:
        """Raises EnvUsageError without minerl, UnknownEnvironment, SettingError."""
        if name not in TASKS:
            raise UnknownEnvironment(f"no BASALT task {name!r}; the tasks are {', '.join(TASKS)}")
        numbers = {"width": width, "height": height, "max_steps": max_steps, "frame_skip": frame_skip}
        for setting, value in numbers.items():
            if value < 1:
                raise SettingError(f"{setting} must be at least 1, got {value}")
        self._size, self._max_steps, self._skip, self._esc = (width, height), max_steps, frame_skip, esc_is_success
        self._task, self._over = name, True
        self._game: Any = _taken(name)
        self.spec = EnvSpec(
            name=f"minerl:{name}",
            one_line=f"Minecraft: {TASKS[name][0].lower()}{TASKS[name][1:].rstrip('.')}",
            system_prompt=(
                'You play Minecraft. Answer with a JSON object {"reasoning": a short sentence, "action": {...}} or the '
                f"action alone. These keys are 1 when pressed and may be left out: {', '.join(BUTTONS)}. The key "
                "camera is [pitch, yaw] in degrees by which the view turns: positive looks down, and right. ESC ends "
                "the episode."
            ),
            action_regex=game_actions.JSON_REGEX,
            horizon=max_steps,
            best_return=1.0,
            best_success=math.nan,
            failure_return=0.0,
            image=True,
            extra={"instruction": TASKS[name], "minerl_task": name},
        )

    def reset(self, seed: int) -> Observation:
        self._game.seed(seed % SEEDS)
        self._seen = self._game.reset()
        self._steps, self._over = 0, False
        return self._observe()

    def step(self, action: str) -> StepResult:
        if self._over:
            raise EpisodeOver("the episode is over: call reset")
        self._steps += 1
        try:
            keys: GameAction | None = game_actions.from_json(action)
        except BadAction:
            keys = None
        done = self._play(keys or game_actions.no_op())
        escaped = keys is not None and bool(keys["ESC"])
        ended = done or escaped
        truncated = not ended and self._steps >= self._max_steps
        self._over = ended or truncated
        success = escaped and self._esc
        info: dict[str, Any] = {"parse_ok": keys is not None, "illegal": keys is None}
        if ended:
            info["outcome"] = "win" if success else "loss"
        return StepResult(self._observe(), float(success), ended, truncated, success, info)

    def _play(self, keys: GameAction) -> bool:
        """Plays the ticks of one answer; returns whether Minecraft has ended the episode."""
        for tick in range(self._skip):
            action = self._game.action_space.noop()
            action.update({key: keys[key] for key in BUTTONS if key in action})
            action[CAMERA] = np.asarray(keys[CAMERA] if tick == 0 else (0.0, 0.0), np.float32)
            self._seen, _, done, info = self._game.step(action)
            if info.get("error"):  # MineRL then ends the episode with a picture at random
                lost, self._game = self._game, None
                lost.close()
                raise RuntimeError(f"Minecraft was lost: {info['error']}")
            if done:
                return True
        return False

    def _observe(self) -> Observation:
        left = self._max_steps - self._steps
        return Observation(f"{TASKS[self._task]} Steps left: {left}.", image=_scaled(self._seen["pov"], self._size))

    def expert_action(self, rng: random.Random, noise: float = 0.0, illegal_noise: float = 0.0) -> str:
        """Walks about: the tasks come without an expert. Good for formatting, no teacher."""
        if rng.random() < illegal_noise:
            return "no action"
        return game_actions.as_json(["forward"], yaw=float(rng.choice((-15, 0, 0, 15))))

    def render(self) -> np.ndarray:
        return np.asarray(self._seen["pov"], np.uint8)

    def close(self) -> None:
        """Minecraft takes a minute to start: the next environment of this process goes on with it."""
        if self._game is not None:
            IDLE.setdefault(self._task, []).append(self._game)
            self._game = None


def _scaled(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[height, width, 3] of another size."""
    from PIL import Image

    return np.asarray(Image.fromarray(np.asarray(image, np.uint8)).resize(size, Image.Resampling.BILINEAR))


def _taken(name: str) -> Any:
    """A Minecraft that nobody plays, or a new one."""
    waiting = IDLE.get(name)
    return waiting.pop() if waiting else _made(name)


def _made(name: str) -> Any:
    try:
        import gym
        import minerl  # noqa: F401 - registers its environments with gym
    except ModuleNotFoundError as error:
        raise EnvUsageError(
            f"minerl:{name} needs the library minerl and Java 8 ({error}). Give it an environment of its own: python "
            "-m venv /path/venv; install minerl 1.0 (github.com/minerllabs/minerl), numpy and pillow into it; then "
            "set env.python: /path/venv/bin/python"
        ) from error
    game = gym.make(name)
    missing = [key for key in (*BUTTONS, CAMERA) if key not in game.action_space.noop()]
    if missing:
        raise EnvUsageError(
            f"minerl:{name} has no {missing[0]} among its actions: this minerl is older than 1.0, whose tasks end "
            "otherwise. Install 1.0 (github.com/minerllabs/minerl)"
        )
    return game
