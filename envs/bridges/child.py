"""The process of one environment: started with a Python of one's choice, killed by its handle."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envs.base import EnvUsageError
from envs.bridges.wire import PROTOCOL, Channel, EnvLost, read_error

END_S = 10.0  # for a process that has closed its connection, or was killed
# Loads `envs` alone from its folder: with the folder above on its path, another Python would also see whatever is
# installed beside rayward. What prevents it (no numpy, a Python too old) is told as a frame, by the standard library.
START = """
import importlib.util, json, os, struct, sys
connection, lifeline, folder, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
sys.path[:] = path or sys.path
try:
    spec = importlib.util.spec_from_file_location(
        "envs", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    sys.modules["envs"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["envs"])
    from envs.bridges.env_server import main
except BaseException as error:
    told = json.dumps({"failed": type(error).__name__ + ": " + str(error)}).encode()
    os.write(connection, struct.pack(">II", len(told), 0) + told)
    sys.exit(1)
main(connection, lifeline)
"""


class EnvProcess:
    """A process that plays environments one after another, for one caller at a time.

    It leads a process group of its own: with it ends what it started (a simulator), and Ctrl-C in a terminal reaches
    it only through its parent. Its output is this process's. It ends when this process does, however that ends.
    """

    def __init__(self, python: str | None = None) -> None:
        """Starts it. `python` is an interpreter, which has numpy and what the environments need; None: this one, with
        this one's path. Raises EnvUsageError when it cannot be started."""
        self._python = python or sys.executable
        ours, theirs = socket.socketpair()
        for_child, self._lifeline = os.pipe()  # closed with this process: see env_server.end_with_parent
        path = json.dumps(sys.path if python is None else [])
        arguments = [str(theirs.fileno()), str(for_child), str(Path(__file__).parents[1]), path]
        try:
            self._process = subprocess.Popen(
                [self._python, "-c", START, *arguments],
                pass_fds=(theirs.fileno(), for_child),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            os.close(self._lifeline)
            ours.close()
            raise EnvUsageError(f"the interpreter {self._python} cannot be started: {error}") from error
        finally:
            theirs.close()
            os.close(for_child)
        self._channel = Channel(ours)
        self._greeted, self._calling, self._open = False, False, True
        self._killing = threading.Lock()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def usable(self) -> bool:
        """Whether it waits for a call: one that has not answered the last is of no more use."""
        if not self._open or self._calling:
            return False
        # Looked at and not waited for: until `kill`, its number is its own.
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def call(self, request: Mapping[str, Any], limit_s: float | None = None) -> tuple[Any, bytes]:
        """(value, picture). Waits for: the answer, at most `limit_s`, after which the process is killed. Unblocked by:
        `kill`, the end of the process.

        Raises what the environment raised, EnvLost, and EnvUsageError for a process that cannot play environments.
        """
        if limit_s is None:
            return self._call(request)
        expired = threading.Event()

        def give_up() -> None:
            expired.set()
            self.kill()

        timer = threading.Timer(limit_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            return self._call(request)
        except EnvLost as error:
            if expired.is_set():
                raise EnvLost(
                    f"the environment has not answered {request.get('call')} within {limit_s:g} s (env.step_timeout_s)"
                ) from error
            raise
        finally:
            timer.cancel()

    def _call(self, request: Mapping[str, Any]) -> tuple[Any, bytes]:
        self._calling = True
        try:
            if not self._greeted:
                self._greet()
            self._channel.send(request)
            answer, picture = self._channel.receive()
        except EnvLost as error:
            raise EnvLost(f"the environment was lost: {self._ended(error)}") from error
        self._calling = False
        if "error" in answer:
            raise read_error(answer["error"])
        return answer["value"], picture

    def _greet(self) -> None:
        """Reads the first frame. Raises EnvUsageError, EnvLost."""
        hello, _ = self._channel.receive()
        if "failed" in hello:
            raise EnvUsageError(
                f"environments cannot be played in {self._python}: {hello['failed']}. It must be Python 3.11 or newer "
                "and have numpy and what the environment needs"
            )
        if hello.get("protocol") != PROTOCOL:
            raise EnvUsageError(
                f"the environment's process speaks version {hello.get('protocol')} of the protocol and this rayward "
                f"version {PROTOCOL}: both need the same rayward"
            )
        self._greeted = True

    def _ended(self, error: EnvLost) -> str:
        """How the process ended. Its exit code was settled before its connection closed: `kill` does not change it."""
        self.kill()
        self._channel.close()
        try:
            code = self.join()
        except subprocess.TimeoutExpired:
            return str(error)
        if code == -signal.SIGKILL:
            return "its process was killed (mostly for want of memory)"
        return f"its process ended {f'by {signal.Signals(-code).name}' if code < 0 else f'with exit code {code}'}"

    def kill(self) -> None:
        """Ends it and what it started, at once; once more does nothing. Never waits."""
        with self._killing:
            if not self._open:
                return
            self._open = False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        os.close(self._lifeline)
        self._channel.shut()
        if not self._calling:  # else whoever calls closes it: another file could take its number before they look
            self._channel.close()
        # A process in the kernel (a driver, a network file system) may take its time to end: nobody waits for it here.
        threading.Thread(target=self._process.wait, name=f"reap-{self.pid}", daemon=True).start()

    def join(self, timeout_s: float = END_S) -> int:
        """The exit code, after `kill`. Raises subprocess.TimeoutExpired."""
        return self._process.wait(timeout_s)
