"""The programs of docs/serving.md, run as a newcomer runs them: from an environment that holds the wheel alone, against
real servers, with nothing changed but the address."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.contracts.robots import RobotServer
from tests.packaging.environments import Installation

pytestmark = pytest.mark.integration

PAGE = Path(__file__).resolve().parents[3] / "docs/serving.md"


def programs() -> dict[str, str]:
    """A client's heading, up to the colon -> its program."""
    sections = re.findall(r"^### (.*?)^(?=###? )", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    found = {}
    for section in sections:
        blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
        assert len(blocks) == 1, section
        found[re.split("[:\n]", section)[0]] = blocks[0]
    return found


def answered(installation: Installation, client: str, address: str) -> str:
    """What a client's program prints, run against the server at this address (host:port, perhaps with a path)."""
    program = programs()[client].replace("HOST:50051", address).replace("HOST:8000", address)
    done = installation.run("python", "-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" or client == "OpenAI"  # where no action came in time, our clients say so and go on
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("client", "printed"),
    [
        ("HTTP", r"^\(10, 7\) 0$"),
        ("WebSocket", r"^\(10, 7\) 0$"),
        ("gRPC", r"^([0-9a-f]{32} \(10, 7\)\n){4}[0-9a-f]{32} \(10, 7\)$"),
        ("A robot that plays chunks", r"^100 actions, \d+ ticks without one$"),
    ],
)
def test_the_lines_of_a_robots_client_need_the_wheel_and_nothing_else(
    base_install: Installation, robots: RobotServer, client: str, printed: str
) -> None:
    address = robots.grpc if "HOST:50051" in programs()[client] else robots.http
    assert re.search(printed, answered(base_install, client, address))


def test_the_lines_of_minerls_client_need_the_wheel_and_nothing_else(
    base_install: Installation, vision: httpx.Client
) -> None:
    address = str(vision.base_url).removeprefix("http://").rstrip("/")
    assert "'camera': array(" in answered(base_install, "MineRL", address)


def test_the_lines_of_openais_client_are_answered(installed: Installation, stack: Any) -> None:
    address = stack.http.removeprefix("http://")
    assert answered(installed, "OpenAI", address)  # a model with random weights says anything


def test_every_client_of_the_page_is_tried_here() -> None:
    assert sorted(programs()) == ["A robot that plays chunks", "HTTP", "MineRL", "OpenAI", "WebSocket", "gRPC"]
