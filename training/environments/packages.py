"""Packages of an environment, installed into a virtual environment of their own on each machine that plays it.

As the pip of a Ray runtime_env does it, but not by Ray: the environment is tried, and plays demonstrations, before Ray
runs, and `rayward play` has no Ray at all.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.base import UserError
from configs.rollouts import EnvConfig

NEEDED = ("numpy",)  # by envs itself
CACHE = Path("~/.cache/rayward/environments")
READY = "ready"  # a file that appears in a virtual environment when it is complete
SHOWN_LINES = 12


class PackagesNotInstalled(UserError):
    """The packages of an environment could not be installed; the message has the end of what pip said."""


def interpreter_of(env: EnvConfig) -> str | None:
    """The interpreter that plays the environment, installed on first use; None: this one. Raises
    PackagesNotInstalled."""
    if not env.packages:
        return env.python
    return str(installed(env.packages, env.install_timeout_s))


def installed(packages: Sequence[str], deadline_s: float, cache: Path = CACHE) -> Path:
    """The Python of a virtual environment that holds the packages. Processes that want the same one wait for the first,
    at most `deadline_s`; what an interrupted installation left is made anew. Raises PackagesNotInstalled."""
    from filelock import FileLock, Timeout

    folder = cache.expanduser() / _key(packages)
    python = folder / "bin" / "python"
    if (folder / READY).exists():
        return python
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{folder}.lock", timeout=deadline_s):
            if not (folder / READY).exists():
                _install(folder, python, packages, deadline_s)
    except Timeout as error:
        raise PackagesNotInstalled(
            f"another process has been installing {', '.join(packages)} for {deadline_s:g} s (env.install_timeout_s). "
            f"End it, or remove {folder}.lock"
        ) from error
    return python


def _key(packages: Sequence[str]) -> str:
    asked = json.dumps([sys.version, sys.prefix, sorted({*packages, *NEEDED})])
    return hashlib.blake2b(asked.encode(), digest_size=8).hexdigest()


def _install(folder: Path, python: Path, packages: Sequence[str], deadline_s: float) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    wanted = folder / "requirements.txt"
    # A file, because its lines may also be pip's options (--index-url, --find-links, -r).
    commands = (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "-r", str(wanted)],
    )
    for command in commands:
        if python.exists():
            wanted.write_text("\n".join([*NEEDED, *packages]) + "\n")
        _run(command, packages, deadline_s)
    (folder / READY).touch()


def _run(command: Sequence[str], packages: Sequence[str], deadline_s: float) -> None:
    try:
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
            timeout=deadline_s,
        )
    except subprocess.TimeoutExpired as error:
        raise PackagesNotInstalled(
            f"installing {', '.join(packages)} took longer than {deadline_s:g} s: raise env.install_timeout_s"
        ) from error
    except subprocess.CalledProcessError as error:
        said = "\n".join(error.stdout.strip().splitlines()[-SHOWN_LINES:])
        raise PackagesNotInstalled(
            f"the environment's packages {', '.join(packages)} (env.packages) could not be installed. pip said:\n{said}"
        ) from error
