"""The environment's side of `envs.bridges.wire`: plays one environment after another, one call at a time.

Runs in a process of its own, which `envs.bridges.child` starts; nothing but `envs` is imported, so the Python may be
another one than the trainer's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import random
import signal
import socket
import threading
import traceback
from typing import Any

import numpy as np

from envs import registry
from envs.base import Env
from envs.bridges import wire

F_SETSIG = 10  # of Linux; Python's fcntl does not name it
Answer = tuple[Any, np.ndarray | None]


def serve(channel: wire.Channel) -> None:
    """Consumes: requests. Waits for: the next one. Stops when: the other end is closed."""
    channel.send({"protocol": wire.PROTOCOL, "python": platform.python_version()})
    host = Host()
    try:
        while True:
            request, _ = channel.receive()
            try:
                value, image = host.answer(request)
                channel.send({"value": value}, image)
            except wire.EnvLost:
                raise
            except Exception as error:  # the environment's: told to whoever called
                channel.send(wire.written_error(error, traceback.format_exc()))
    except wire.EnvLost:
        with contextlib.suppress(Exception):  # nobody is left to be told
            host.close()


class Host:
    """The environment that is played, if there is any."""

    def __init__(self) -> None:
        self._env: Env | None = None

    def answer(self, request: dict[str, Any]) -> Answer:
        """(value, picture). Raises what the environment raises, ValueError for an unknown call."""
        match request:
            case {"call": "make", "name": name, "settings": settings}:
                self.close()
                self._env = registry.make(name, **settings)
                return wire.written_spec(self._env.spec), None
            case {"call": "reset", "seed": seed}:
                return wire.written_observation(self._made.reset(seed))
            case {"call": "step", "action": action}:
                return wire.written_result(self._made.step(action))
            case {"call": "opponent_observation"}:
                seen = self._made.opponent_observation()
                return (None, None) if seen is None else wire.written_observation(seen)
            case {"call": "opponent_step", "action": action}:
                return wire.written_result(self._made.opponent_step(action))
            case {"call": "expert_action", "rng": state, "noise": noise, "illegal_noise": illegal_noise}:
                rng = random.Random()
                rng.setstate((state[0], tuple(state[1]), state[2]))
                action = self._made.expert_action(rng, noise, illegal_noise)
                return {"action": action, "rng": wire.plain(rng.getstate())}, None
            case {"call": "render"}:
                image = self._made.render()
                return {"image": wire.written_shape(image)}, image
            case {"call": "close"}:
                self.close()
                return None, None
        raise ValueError(f"unknown call {request!r:.80}")

    def close(self) -> None:
        env, self._env = self._env, None
        if env is not None:
            env.close()

    @property
    def _made(self) -> Env:
        if self._env is None:
            raise ValueError("no environment is made: call make first")
        return self._env


def end_with_parent(lifeline: int) -> None:
    """Ends this process and all it started when the other end of the pipe `lifeline` is closed, as the kernel does
    for a parent that is killed. The signal comes from the kernel, since a call into a library may hold the interpreter
    for ever; the thread is for systems without F_SETSIG. This process leads a process group of its own."""
    threading.Thread(target=_end_at, args=(lifeline,), daemon=True).start()
    with contextlib.suppress(OSError):
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _end_at(lifeline: int) -> None:
    os.read(lifeline, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def main(connection: int, lifeline: int) -> None:
    """`connection`: file descriptor of a socket. `lifeline`: of a pipe to which nothing is written."""
    end_with_parent(lifeline)
    with socket.socket(fileno=connection) as open_socket:
        serve(wire.Channel(open_socket))
