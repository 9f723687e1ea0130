"""Importing litellm reaches nothing: no price lists, no news, no `.env` of some folder above."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import socket, sys

def refuse(self, address):
    print("connected to", address, flush=True)
    raise OSError("no network")

socket.socket.connect = refuse
socket.getaddrinfo = lambda *arguments, **_: print("looked up", arguments[0], flush=True) or []

from deployments.engines.provider import library

litellm = library.load()
assert litellm.get_llm_provider("openai/gpt-4o")[1] == "openai"
assert litellm.supports_response_schema("openai/gpt-4o")
import os
print("read" if "FROM_DOTENV" in os.environ else "not read")
"""
ROOT = Path(__file__).resolve().parents[5]


def test_it_is_loaded_without_the_network_and_without_reading_files_of_variables(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FROM_DOTENV=1\n")

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == ["not read", ""]
