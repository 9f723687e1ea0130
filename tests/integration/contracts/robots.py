"""`rayward serve` with a small robot policy, as a robot's user starts it: the real application behind real sockets."""

from __future__ import annotations

import os
import re
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.integration.processes import MARK, Process

ROOT = Path(__file__).resolve().parents[3]
START_S = 200.0
CONFIG = {
    "http": {"port": 0, "manage_policies": True},
    "grpc": {"port": 0},
    "policies": [
        {
            "name": "robot",
            "kind": "chunks",
            "checkpoint": "tiny:robot",
            "device": "cpu",
            "request_deadline_s": 20.0,
            "replicas": {"drain_s": 2.0, "num_cpus": 0.5},
        }
    ],
}


@dataclass(frozen=True)
class RobotServer:
    """`http` and `grpc` are host:port, as the command printed them. `mark`: in the environment of its processes."""

    http: str
    grpc: str
    mark: str
    printed: str


@contextmanager
def robot_server(storage: Path) -> Iterator[RobotServer]:
    mark = uuid.uuid4().hex
    file = storage / "robots.yaml"
    file.write_text(yaml.safe_dump({**CONFIG, "storage_path": str(storage)}))
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RAY", "PYTEST_"))}
    command = [sys.executable, "-c", "from training.commands.app import main; main()", "serve", "--config", str(file)]
    with Process(command, {**ours, MARK: mark, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}, ROOT) as process:
        process.wait_for("ready after", START_S)
        http, grpc = (
            re.search(r"http://(\S+)", process.printed),
            re.search(r"gRPC RobotPolicyService at (\S+:\d+)", process.printed),
        )
        assert http is not None, process.printed
        assert grpc is not None, process.printed
        yield RobotServer(http[1].rstrip("/"), grpc[1], mark, process.printed)
