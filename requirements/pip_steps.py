"""The steps of a set-up: pip, run with its output in a log and its progress on the terminal, several at once. Standard
library only."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stamp import ROOT, VENV, installed_packages

LOG = VENV / "setup.log"
PIP = [
    str(VENV / "bin/python"), "-m", "pip", "install", "--no-deps", "--no-compile", "--no-input", "--retries", "5",
    "--progress-bar", "off", "--disable-pip-version-check", "--no-warn-script-location",
]  # fmt: skip


class StepFailed(Exception):
    """A command failed; the message holds the end of its output."""


class Progress:
    """Draws how far pip is: each package counts once when it is fetched and once when it is unpacked."""

    fetched = 0  # counted by every pip() that runs meanwhile

    def __init__(self, total: int) -> None:
        self.total = total
        self.started = time.monotonic()

    def line(self) -> str:
        unpacked = min(len(installed_packages()), self.total)
        done = (min(Progress.fetched, self.total) + unpacked) / (2 * self.total)
        elapsed = time.monotonic() - self.started
        left = f"about {elapsed * (1 - done) / done:.0f} s left" if done > 0.05 else "time left: not known yet"
        return f"{done:4.0%}  {elapsed:.0f} s, {left}"


@contextmanager
def step(name: str, progress: Progress | None = None) -> Iterator[None]:
    started = time.monotonic()
    print(f"-- {name}", flush=True)
    over = threading.Event()
    drawer = threading.Thread(target=draw, args=(progress, over), daemon=True)
    if progress:
        drawer.start()
    try:
        yield
    finally:
        over.set()
        if progress:
            drawer.join()
    print(f"   done in {time.monotonic() - started:.0f} s", flush=True)


def draw(progress: Progress, over: threading.Event) -> None:
    terminal = sys.stdout.isatty()
    while not over.wait(0.5 if terminal else 15):
        print(
            f"\r\033[K   {progress.line()}" if terminal else f"   {progress.line()}",
            end="" if terminal else "\n",
            flush=True,
        )
    if terminal:
        print("\r\033[K", end="", flush=True)


def pip(arguments: list[str], attempts: int = 2, may_fail: bool = False) -> bool:
    for attempt in range(1, attempts + 1):
        try:
            run([*PIP, *arguments])
            return True
        except StepFailed:
            if (attempt == attempts and not may_fail) or STOPPING.is_set():
                raise
    return False


RUNNING: set[subprocess.Popen] = set()
STOPPING = threading.Event()


def stop_commands() -> None:
    STOPPING.set()
    for process in list(RUNNING):
        process.terminate()


def run(command: list[str]) -> None:
    kept_out = {
        "PYTHONPATH",
        "PYTHONHOME",
        "VIRTUAL_ENV",
        "PIP_USER",
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_REQUIRE_VIRTUALENV",
    }
    environment = {key: value for key, value in os.environ.items() if key not in kept_out}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    RUNNING.add(process)
    output: list[str] = []
    for line in process.stdout:
        output.append(line)
        Progress.fetched += line.startswith("Collecting ")
    code = process.wait()
    RUNNING.discard(process)
    with LOG.open("a") as log:
        log.write(f"$ {' '.join(command)}\n{''.join(output)}\n")
    if code != 0:
        raise StepFailed(
            f"exit code {code} from {Path(command[0]).name} {' '.join(command[1:4])} ...\n{''.join(output[-15:])}"
        )
