"""A model behind an API as a robot's policy, as a user starts it: `rayward serve` with keys, limits and two replicas.

The provider is a server of this test on loopback. Afterwards the logs of all processes are searched for both keys.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import httpx
import pytest
import yaml

from deployments.access.keys import new_key
from tests.unit.deployments.engines.provider.openai_server import OpenAIServer, failed, openai_server, said

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[3]
SECRET = "provider-key-0123456789"
ROBOT = new_key("robot-1")
AXES = ("x", "y", "z", "tilt", "roll", "rotation", "gripper")
LEADS = {"x": '["forward", 1.0, "it lies ahead"]'}
REST = '[null, 0.0, "no need"]'
FORWARD = "Ahead.\n```json\n{" + ", ".join(f'"{axis}": {LEADS.get(axis, REST)}' for axis in AXES) + "}\n```"
START_LIMIT_S = 200


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenAIServer]:
    """In a thread with a loop of its own."""
    started: Queue[OpenAIServer] = Queue()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def run() -> None:
        async with openai_server() as server:
            started.put(server)
            await ended.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    yield started.get(timeout=30)
    loop.call_soon_threadsafe(ended.set)
    thread.join(30)


@pytest.fixture(scope="module")
def logs() -> Iterator[Path]:
    """Where Ray writes; a short path, because its sockets lie there, too."""
    folder = Path(tempfile.mkdtemp(prefix="rw-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


class Served:
    """A `rayward serve` that is ready. `said`: what it has printed so far."""

    def __init__(self, config: Path, environment: dict[str, str]) -> None:
        self.said: list[str] = []
        self._lines: Queue[str] = Queue()
        serve = "from training.commands.app import main; main()"
        self.process = subprocess.Popen(
            # A shell's background job ignores SIGINT, and so would all that it starts.
            ["env", "--default-signal=INT", sys.executable, "-c", serve, "serve", "--config", str(config)],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.address = self._ready()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            self._lines.put(line)
        self._lines.put("")

    def _ready(self) -> str:
        while True:
            try:
                line = self._lines.get(timeout=START_LIMIT_S)
            except Empty:
                self.end()
                pytest.fail(f"not ready: {self.said}")
            if found := re.search(r"ready.*(http://127\.0\.0\.1:\d+)", line):
                return found[1]
            if not line:
                pytest.fail(f"ended: {self.said}")

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        code = self.process.wait(60)
        self._reader.join(10)
        return code


@pytest.fixture(scope="module")
def served(provider: OpenAIServer, logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("providers")
    limits = folder / "rate_limits.yaml"
    limits.write_text("openai: {models: {gpt-4o-mini: {requests_per_minute: 3, tokens_per_minute: 100000}}}")
    policy = {
        "name": "gpt", "kind": "provider", "model": "openai/gpt-4o", "api_base": provider.address,
        "rate_limits": str(limits), "retries": 0, "act": {"arm": {}},
        "replicas": {"min_replicas": 2, "max_replicas": 2, "num_cpus": 0.1, "drain_s": 1},
    }  # fmt: skip
    config = folder / "serve.yaml"
    config.write_text(
        yaml.safe_dump(
            {"http": {"port": 0}, "access": {"keys_variable": "RAYWARD_API_KEYS"}, "policies": [policy]}
            | {"check_memory": False, "storage_path": str(folder)}
        )
    )
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {
        "OPENAI_API_KEY": SECRET, "VLM_MODEL": "openai/gpt-4o-mini", "RAYWARD_API_KEYS": ROBOT.line,
        "RAY_TMPDIR": str(logs), "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    started = Served(config, environment)
    yield started
    started.end()


def act(served: Served, png: str, key: str | None = ROBOT.key) -> httpx.Response:
    headers = {"x-timeout-s": "15"} | ({"authorization": f"Bearer {key}"} if key else {})
    body = {"image": png, "instruction": "move ahead"}
    return httpx.post(f"{served.address}/act", json=body, headers=headers, timeout=60)


def test_a_provider_is_a_policy_with_keys_and_limits_that_nobody_can_read_afterwards(
    served: Served, provider: OpenAIServer, png: str, logs: Path
) -> None:
    assert act(served, png, key=None).status_code == 401
    assert act(served, png, key="rw_robot-1_" + "0" * 48).status_code == 401
    assert httpx.get(f"{served.address}/health", timeout=60).json()["rate_limits_configured"] is True
    assert provider.bodies == [], "nobody without a key costs money"

    provider.answers(said(FORWARD))
    first = act(served, png)
    assert first.status_code == 200, first.text
    assert first.json()[0] == pytest.approx(0.011131)
    assert (provider.bodies[0]["model"], provider.keys[0]) == ("gpt-4o-mini", f"Bearer {SECRET}")

    provider.answers(failed(401, f"Incorrect API key provided: {SECRET}"))
    second = act(served, png)
    assert (second.status_code, second.json()["kind"]) == (500, "internal")
    assert "check OPENAI_API_KEY" in second.json()["message"]
    provider.answers(said(FORWARD))
    assert act(served, png).status_code == 200

    refused = [act(served, png) for _ in range(3)]  # whichever replica they meet

    assert [answer.status_code for answer in refused] == [429] * 3
    assert 1 <= int(refused[0].headers["retry-after"]) <= 60
    assert refused[0].headers["x-ratelimit-limit-requests"] == "3"
    assert refused[0].headers["x-ratelimit-remaining-requests"] == "0"
    assert len(provider.bodies) == 3
    assert served.end() == 130
    for secret in (SECRET, ROBOT.key):
        assert [str(file) for file in written(logs) if secret.encode() in file.read_bytes()] == []
        assert secret not in "".join(served.said) + second.text


def written(folder: Path) -> list[Path]:
    files: list[Any] = [file for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]
    assert any("replica" in file.name or "worker" in file.name for file in files), "the logs are elsewhere"
    return files
