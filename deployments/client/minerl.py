"""A MineRL player's client: the frame of an environment in, an action for it out. No ray, torch or vllm.

agent = MineRLClient("http://gpu-machine:8000", record_to=Path("episodes"))
agent.reset()
obs, done = env.reset(), False
while not done:
    obs, _, done, _ = env.step(agent.get_action(obs, "MineRLBasaltFindCave-v0"))
"""

from __future__ import annotations

import base64
import json
import logging
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from deployments.client.act import ActClient
from deployments.client.images import Compression
from deployments.errors import PolicyError
from deployments.protocol.game import CAMERA, no_op

logger = logging.getLogger(__name__)

# Failures that a game plays on through.
PASSING = ("unavailable", "deadline_exceeded", "overloaded", "engine_failed", "stale_weights")
GAME_COMPRESSION = Compression(longest_side=640, quality=85, max_bytes=100_000)


class MineRLClient:
    """Remembers the episode's last frames and actions, and sends them along. A game goes on whatever happens to the
    server: while none answers, `get_action` gives the action that does nothing, and says so in the log. With `strict`
    it raises PolicyError instead, for who must not take a lost server for a player that does nothing."""

    def __init__(
        self,
        base_url: str,
        key: str | None = None,
        policy: str | None = None,
        timeout_s: float = 10.0,
        retries: int = 2,
        max_history_length: int = 5,
        record_to: Path | None = None,
        compression: Compression = GAME_COMPRESSION,
        strict: bool = False,
    ) -> None:
        """`record_to`: a folder that gets one folder per episode, with its frames and `steps.jsonl`."""
        self._client = ActClient(base_url, key=key, policy=policy, timeout_s=timeout_s, retries=retries)
        self._compression = compression
        self._max_history_length = max_history_length
        self._history: deque[dict[str, Any]] = deque(maxlen=max(0, max_history_length - 1))
        self._recording = None if record_to is None else _Recording(record_to)
        self._step = 0
        self._strict = strict
        self.parse_ok = True  # of the newest answer: whether the server could read what its model said

    def check_health(self) -> bool:
        """Whether a server answers, and is ready."""
        try:
            body = self._client.health()
        except PolicyError as error:
            logger.warning("%s", error)
            return False
        return body.get("status") == "healthy"

    def reset(self) -> None:
        """The beginning of an episode."""
        self._history.clear()
        self._step = 0
        if self._recording is not None:
            self._recording.begin()
        try:
            self._client.reset()
        except PolicyError as error:
            if self._strict:
                raise
            logger.warning("the server's history of this session was not forgotten: %s", error)

    def get_action(
        self,
        obs: Mapping[str, Any] | NDArray[np.uint8],
        task_name: str,
        temperature: float = 0.7,
        max_tokens: int = 512,
    ) -> dict[str, Any]:
        """All keys of a MineRL action; `camera` is a float32 array [pitch, yaw] in degrees. `obs`: the environment's
        observation with `pov` [H, W, 3], or that frame."""
        jpeg = self._compression.jpeg(obs["pov"] if isinstance(obs, Mapping) else obs)
        image = {"data": base64.b64encode(jpeg).decode()}
        body = {
            "task_name": task_name,
            "image": image,
            "history": [*self._history, {"image": image, "action": None}],
            "step": self._step,
            "temperature": temperature,
            "max_tokens": max_tokens,
            "max_history_length": self._max_history_length,
        }
        answer = self._answer(body)
        self.parse_ok = bool(answer.get("parse_ok", True))
        action = {**no_op(), **answer["action"]}
        self._history.append({"image": image, "action": action})
        if self._recording is not None:
            self._recording.add(self._step, jpeg, {**answer, "action": action, "task_name": task_name})
        self._step += 1
        return {**action, CAMERA: np.asarray(action[CAMERA], np.float32)}

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            answer = self._client.get_action(body)
        except PolicyError as error:
            if self._strict or error.kind not in PASSING:
                raise  # a mistake of ours, or a missing key: doing nothing would hide it
            logger.warning("step %d: nothing is done, because no action came: %s", self._step, error)
            return {"action": no_op(), "reasoning": "", "parse_ok": False, "error": str(error)}
        if not answer.get("parse_ok", True):
            logger.warning("step %d: the model's answer could not be read: %s", self._step, answer.get("reasoning"))
        return answer


class _Recording:
    """`folder`/episode_NNNN/{frame_NNNNNN.jpg, steps.jsonl}; numbers go on where earlier recordings ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._episode: Path | None = None

    def begin(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        taken = [int(path.name[8:]) for path in self._folder.glob("episode_[0-9][0-9][0-9][0-9]")]
        self._episode = self._folder / f"episode_{max(taken, default=-1) + 1:04d}"
        self._episode.mkdir()

    def add(self, step: int, jpeg: bytes, answer: Mapping[str, Any]) -> None:
        if self._episode is None:
            self.begin()
        assert self._episode is not None
        name = f"frame_{step:06d}.jpg"
        (self._episode / name).write_bytes(jpeg)
        with (self._episode / "steps.jsonl").open("a") as lines:
            lines.write(json.dumps({"step": step, "image": name, **answer}) + "\n")
