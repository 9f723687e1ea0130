"""An environment that plays in a process of its own, as one of ours: same contract, same episodes.

env = remote.started("verifiers:my-env", {}, python="/opt/verifiers/bin/python")
observation = env.reset(seed=7)   # as with registry.make, whose libraries would be in this process
env.close()                       # ends the process, too
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np

from envs.base import Env, Observation, StepResult
from envs.bridges.child import EnvProcess
from envs.bridges.wire import read_image, read_observation, read_result, read_spec


class RemoteEnv(Env):
    """The environment `name` of the registry, made with `settings` in a process that its owner keeps.

    Its calls wait for the process: they belong in a thread. What the environment raises is raised here as
    envs.bridges.wire says, and a process that has ended as EnvLost. It cannot be pickled: its state is elsewhere.
    """

    blocking = True

    def __init__(
        self, process: EnvProcess, name: str, settings: Mapping[str, Any], limit_s: float | None = None
    ) -> None:
        """`limit_s`: of each call, after which its process is killed; None: the caller sees to it."""
        self._process, self._limit_s = process, limit_s
        spec, _ = self._call({"call": "make", "name": name, "settings": dict(settings)})
        self.spec = read_spec(spec)

    def _call(self, request: Mapping[str, Any]) -> tuple[Any, bytes]:
        return self._process.call(request, self._limit_s)

    def reset(self, seed: int) -> Observation:
        return read_observation(*self._call({"call": "reset", "seed": seed}))

    def step(self, action: str) -> StepResult:
        return read_result(*self._call({"call": "step", "action": action}))

    def opponent_observation(self) -> Observation | None:
        value, picture = self._call({"call": "opponent_observation"})
        return None if value is None else read_observation(value, picture)

    def opponent_step(self, action: str) -> StepResult:
        return read_result(*self._call({"call": "opponent_step", "action": action}))

    def expert_action(self, rng: random.Random, noise: float = 0.0, illegal_noise: float = 0.0) -> str:
        """Draws from `rng` what the expert draws there: its state goes along, and comes back."""
        noises = {"noise": noise, "illegal_noise": illegal_noise}
        value, _ = self._call({"call": "expert_action", "rng": rng.getstate(), **noises})
        version, words, gauss = value["rng"]
        rng.setstate((version, tuple(words), gauss))
        return str(value["action"])

    def render(self) -> np.ndarray | None:
        value, picture = self._call({"call": "render"})
        return read_image(value["image"], picture)

    def close(self) -> None:
        """Closes the environment; its process can make another one."""
        self._call({"call": "close"})


class OwnedRemoteEnv(RemoteEnv):
    """The only environment of its process, which `close` ends."""

    def close(self) -> None:
        try:
            if self._process.usable:
                super().close()
        finally:
            self._process.kill()
            self._process.join()


def started(
    name: str, settings: Mapping[str, Any], python: str | None = None, limit_s: float | None = None
) -> OwnedRemoteEnv:
    """An environment in a process of its own. `python` as for EnvProcess, `limit_s` of each call. Raises what making it
    raises, EnvLost."""
    process = EnvProcess(python)
    try:
        return OwnedRemoteEnv(process, name, settings, limit_s)
    except BaseException:
        process.kill()
        process.join()
        raise
