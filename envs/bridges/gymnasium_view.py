"""Any environment here as a `gymnasium.Env`: Text observations (Dict with an image), Text actions.

env = gymnasium_view.make("tictactoe")  # or register() and then gymnasium.make("rayward/tictactoe-v0")
observation, info = env.reset(seed=7)   # the episode that seed 7 gives without the view
observation, reward, terminated, truncated, info = env.step("<move>5</move>")
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from envs import registry
from envs.base import Env, Observation

if TYPE_CHECKING:
    import gymnasium

    _Base = gymnasium.Env[Any, str]
else:
    _Base = object  # `_view_class` puts gymnasium.Env beside it: importing this module leaves gymnasium out


NAMESPACE = "rayward"


class _View(_Base):
    """The wrapped environment is `game`: its `spec` holds the system prompt and the action grammar.

    `reset(seed)` starts the game's episode of that seed; without one the seed is drawn from `np_random`, so that
    a whole sequence of episodes repeats after one seeded reset. `info` also has the game's `success`, and after a reset
    the `tools` and the `earlier` chat, where there are any.
    """

    def __init__(
        self,
        game: Env,
        render_mode: str | None = None,
        max_text: int | None = None,
        alphabet: str | None = None,
    ) -> None:
        """`max_text` is the longest observation or answer in characters, `alphabet` the characters that both may hold;
        None: those that the game names. Raises ValueError for a render mode that the game does not have."""
        from gymnasium import spaces

        self.game = game
        first = game.reset(0)
        modes = [] if game.render() is None else ["rgb_array"]
        if render_mode not in (None, *modes):
            known = ", ".join(modes) or "none"
            raise ValueError(f"{game.spec.name} has no render mode {render_mode!r}; it has: {known}")
        self.render_mode = render_mode
        self.metadata = {"render_modes": modes, "render_fps": 4}
        max_text, alphabet = max_text or game.spec.longest_text, alphabet or game.spec.alphabet
        text = spaces.Text(max_text, min_length=0, charset=alphabet)
        self.action_space = spaces.Text(max_text, min_length=0, charset=alphabet)
        self.observation_space = text
        if first.image is not None:
            image = spaces.Box(0, 255, first.image.shape, np.uint8)
            self.observation_space = spaces.Dict({"text": text, "image": image})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        episode = int(self.np_random.integers(2**31)) if seed is None else seed
        first = self.game.reset(episode)
        more = {"tools": first.tools, "earlier": first.earlier}
        return _shown(first), {name: value for name, value in more.items() if value}

    def step(self, action: str) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        result = self.game.step(action)
        info = {**result.info, "success": result.success}
        return _shown(result.observation), float(result.reward), result.terminated, result.truncated, info

    def render(self) -> Any:
        return self.game.render() if self.render_mode else None

    def close(self) -> None:
        self.game.close()


def _shown(observation: Observation) -> Any:
    """The observation in the form of its space. The image is a copy: a game may draw into its own later."""
    if observation.image is None:
        return observation.text
    return {"text": observation.text, "image": observation.image.copy()}


@cache
def _view_class() -> type[_View]:
    import gymnasium

    return type("GymnasiumView", (_View, gymnasium.Env), {"__doc__": _View.__doc__, "__module__": __name__})


def __getattr__(name: str) -> Any:
    """`GymnasiumView`, made when first asked for: where pickle finds the class again."""
    if name == "GymnasiumView":
        return _view_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def view(game: Env, **options: Any) -> gymnasium.Env[Any, str]:
    """The view of a game that was made already. `options` are those of GymnasiumView."""
    return _view_class()(game, **options)


def make(name: str, render_mode: str | None = None, **settings: Any) -> gymnasium.Env[Any, str]:
    """The view of a fresh environment, by its name in the registry and with its settings."""
    return view(registry.make(name, **settings), render_mode=render_mode)


def register() -> list[str]:
    """Makes every environment known to `gymnasium.make` as `rayward/NAME-v0`; returns these ids."""
    import gymnasium

    ids = {f"{NAMESPACE}/{name}-v0": name for name in registry.names()}
    for identifier, name in ids.items():
        if identifier not in gymnasium.registry:
            gymnasium.register(identifier, entry_point=f"{__name__}:make", kwargs={"name": name})
    return list(ids)
