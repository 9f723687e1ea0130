"""Any Gymnasium environment as one of ours: `gym:CartPole-v1`, `gym:FrozenLake-v1`, `gym:my_package:MyEnv-v0`.

Observations become text (envs.bridges.gym_observations) or an image, answers become actions by a grammar
(envs.bridges.gym_actions). gymnasium is imported when the first environment is made.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
import random
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from envs.base import Env, EnvSpec, EnvUsageError, EpisodeOver, Observation, SettingError, StepResult, check_choice
from envs.bridges.gym_actions import grammar
from envs.bridges.gym_observations import IMAGE_TEXT, ObservationWriter
from envs.parsing import tag_content
from envs.registry import UnknownEnvironment

MOST_STEPS = 1000  # of an episode, where neither Gymnasium nor `max_steps` names a limit
SEEDS = 2**31  # Gymnasium takes no negative seeds, and some simulators none beyond 32 bits


class GymEnv(Env):
    """One Gymnasium environment.

    Settings: `observation` text | image (the frame of `render_mode="rgb_array"`); `digits`, significant digits of its
    numbers; `names` of them; `actions`, names of a Discrete space's actions; `malformed` random | end, what a malformed
    answer does, and `malformed_penalty`, what it costs; `success_return`, from which on an episode is a success (None:
    Gymnasium's reward_threshold, or anything above 0); `best_return` that can be reached (None: the same threshold);
    `max_steps` (None: Gymnasium's, or 1,000); `expert`, "package.module:function" from a raw observation to an action.
    Every other setting goes to `gymnasium.make`.

    A malformed answer plays an action drawn at random: Gymnasium has no neutral one, and ending the episode would
    reward giving up wherever rewards are negative. A number out of its bounds is well-formed but illegal: it is clipped
    into them and played.
    """

    def __init__(
        self,
        identifier: str,
        /,
        observation: str = "text",
        digits: int = 2,
        names: Sequence[str] | None = None,
        actions: Sequence[str] | None = None,
        malformed: str = "random",
        malformed_penalty: float = 0.0,
        success_return: float | None = None,
        best_return: float | None = None,
        max_steps: int | None = None,
        expert: str | None = None,
        **make: Any,
    ) -> None:
        """Raises EnvUsageError without gymnasium or what the environment needs, UnknownEnvironment, SettingError."""
        check_choice("observation", observation, ("text", "image"))
        check_choice("malformed", malformed, ("random", "end"))
        _check_numbers(digits, max_steps, malformed_penalty)
        if observation == "image":
            if names is not None:
                raise SettingError("names labels the numbers of a text: leave it out with observation: image")
            make["render_mode"] = "rgb_array"
        self._identifier, self._make, self._max_steps = identifier, make, max_steps
        self._ends_malformed, self._penalty = malformed == "end", malformed_penalty
        self._expert = None if expert is None else _function(expert)
        self._env = env = self._made()
        self._grammar = grammar(env.action_space, actions)
        self._writer = None if observation == "image" else ObservationWriter(env.observation_space, names, digits)
        self._success_return = env.spec.reward_threshold if success_return is None else success_return
        self._over, self._started = True, False
        best = self._success_return if best_return is None else best_return
        writer = self._writer
        self.spec = EnvSpec(
            name=f"gym:{identifier}",
            one_line=f"Gymnasium's {identifier}",
            system_prompt=(
                f"You play {identifier}. Answer <action>{self._grammar.example}</action> with {self._grammar.hint}."
            ),
            action_regex=f"<action>{self._grammar.regex}</action>",
            horizon=env.spec.max_episode_steps or MOST_STEPS,
            best_return=math.nan if best is None else best,  # unknown
            best_success=1.0,
            image=writer is None or writer.has_image,
            longest_text=len(IMAGE_TEXT) if writer is None else writer.longest_text,
            alphabet=string.printable if writer is None else writer.alphabet,
        )

    def reset(self, seed: int) -> Observation:
        self._rng = random.Random(f"gym/{seed}")  # for malformed answers
        raw, _ = self._env.reset(seed=int(seed) % SEEDS)
        self._over, self._started = False, True
        self._turns, self._return = 0, 0.0
        return self._observe(raw)

    def step(self, action: str) -> StepResult:
        if self._over:
            raise EpisodeOver("the episode is over: call reset")
        content = tag_content(action, "action")
        read = None if content is None else self._grammar.read(content)
        if read is None:
            return self._malformed()
        chosen, within = read
        return self._play(chosen, 0.0, {"parse_ok": True, "illegal": not within})

    def _malformed(self) -> StepResult:
        info = {"parse_ok": False, "illegal": True}
        if not self._ends_malformed:
            return self._play(self._grammar.draw(self._rng), self._penalty, info)
        self._over = True
        return StepResult(self._seen, -self._penalty, True, False, False, info)

    def _play(self, action: Any, penalty: float, info: Mapping[str, Any]) -> StepResult:
        raw, reward, terminated, truncated, _ = self._env.step(action)
        self._turns += 1
        self._return += float(reward)
        truncated = not terminated and bool(truncated or self._turns >= self.spec.horizon)
        self._over = bool(terminated) or truncated
        success = self._over and self._succeeded()
        return StepResult(self._observe(raw), float(reward) - penalty, bool(terminated), truncated, success, info)

    def _succeeded(self) -> bool:
        """By the undiscounted sum of Gymnasium's own rewards: a penalty for malformed answers is not among them."""
        return self._return > 0 if self._success_return is None else self._return >= self._success_return

    def _observe(self, raw: Any) -> Observation:
        self._raw = raw  # for the expert
        self._seen = Observation(IMAGE_TEXT, self._frame()) if self._writer is None else self._writer(raw)
        return self._seen

    def expert_action(self, rng: random.Random, noise: float = 0.0, illegal_noise: float = 0.0) -> str:
        """What the setting `expert` answers; without it, and for the noise of both kinds, a legal action drawn from
        `rng`: Gymnasium's environments come without an expert, and none of their actions is forbidden."""
        if self._expert is None or rng.random() < noise + illegal_noise:
            action = self._grammar.draw(rng)
        else:
            action = self._expert(self._raw)
        return f"<action>{self._grammar.write(action)}</action>"

    def render(self) -> np.ndarray | None:
        """The frame of `render_mode: rgb_array`; None before `reset`, with another render mode, and where the library
        that draws (pygame) is missing."""
        if not self._started or self._env.render_mode != "rgb_array":
            return None
        try:
            return self._frame()
        except EnvUsageError:
            return None

    def close(self) -> None:
        self._env.close()

    def __getstate__(self) -> dict[str, Any]:
        """Before the first `reset` without Gymnasium's environment, which is made again: any environment can be sent
        to another process then. Later those can that Python can pickle."""
        return self.__dict__ if self._started else {**self.__dict__, "_env": None}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        if self._env is None:
            self._env = self._made()

    def _made(self) -> Any:
        """Gymnasium's environment. What gymnasium says to its name and to its settings is an EnvUsageError."""
        gymnasium = _library(self._identifier)
        options = {"max_episode_steps": self._max_steps, "disable_env_checker": True, **self._make}
        what = f"gym:{self._identifier} cannot be made"
        try:
            return gymnasium.make(self._identifier, **options)
        except (gymnasium.error.UnregisteredEnv, ModuleNotFoundError) as error:
            raise UnknownEnvironment(f"{what}: {error}") from error
        except gymnasium.error.Error as error:
            raise EnvUsageError(f"{what}: {error}") from error
        except Exception as error:  # an environment's own constructor may answer a setting with any exception
            if not self._make:
                raise
            hint = _nearest(self._make) if isinstance(error, TypeError) else ""
            raise SettingError(f"{what} with {self._make}: {type(error).__name__}: {error}{hint}") from error

    def _frame(self) -> np.ndarray:
        from gymnasium.error import DependencyNotInstalled

        try:
            frame = self._env.render()
        except DependencyNotInstalled as error:
            raise EnvUsageError(f"gym:{self._identifier} cannot draw its image: {error}") from error
        if not isinstance(frame, np.ndarray) or frame.shape[2:] != (3,) or frame.dtype != np.uint8:
            raise EnvUsageError(f"gym:{self._identifier} draws no HxWx3 image with render_mode rgb_array")
        return frame.copy()


def _library(identifier: str) -> Any:
    try:
        import gymnasium
    except ModuleNotFoundError as error:
        raise EnvUsageError(
            f"gym:{identifier} needs gymnasium, which is not installed: pip install rayward[train] (or gymnasium)"
        ) from error
    return gymnasium


def _check_numbers(digits: int, max_steps: int | None, malformed_penalty: float) -> None:
    if not 1 <= digits <= 15:
        raise SettingError(f"digits must lie in 1..15, got {digits}")
    if max_steps is not None and max_steps < 1:
        raise SettingError(f"max_steps must be at least 1, got {max_steps}")
    if not 0 <= malformed_penalty < math.inf:
        raise SettingError(f"malformed_penalty must be 0 or more, got {malformed_penalty}")


def _function(path: str) -> Callable[[Any], Any]:
    """Raises SettingError."""
    module, _, name = path.partition(":")
    try:
        found: Callable[[Any], Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingError(f"expert must be package.module:function; {path!r} cannot be imported: {error}") from error
    return found


def _nearest(settings: Mapping[str, Any]) -> str:
    """A hint at the adapter's own settings, of which one may have been meant."""
    own = list(inspect.signature(GymEnv).parameters)[1:-1]
    near = [match for name in settings for match in difflib.get_close_matches(name, own, n=1, cutoff=0.6)]
    return f". Did you mean {near[0]!r}?" if near else f". The adapter's own settings: {', '.join(own)}"
