"""The programs of docs/serving.md, run as a newcomer runs them: from an environment that holds the wheel alone, against
real servers, with nothing changed but the address."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

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


@pytest.fixture
def addressed(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """A client's program with the address of a server that has its policy; only these servers are started."""

    def program(client: str) -> str:
        written = programs()[client]
        if "HOST:50051" in written:
            return written.replace("HOST:50051", request.getfixturevalue("robots").grpc)
        match client:
            case "MineRL":
                server = str(request.getfixturevalue("vision").base_url)
            case "OpenAI":
                server = request.getfixturevalue("stack").http
            case _:
                server = request.getfixturevalue("robots").http
        return written.replace("HOST:8000", server.removeprefix("http://").rstrip("/"))

    return program


@pytest.mark.parametrize(
    ("client", "printed"),
    [
        ("HTTP", r"^\(10, 7\) 0$"),
        ("WebSocket", r"^\(10, 7\) 0$"),
        ("gRPC", r"^([0-9a-f]{32} \(10, 7\)\n){4}[0-9a-f]{32} \(10, 7\)$"),
        ("A robot that plays chunks", r"^100 actions, \d+ ticks without one$"),
        ("MineRL", r"'camera': array\("),
    ],
)
def test_the_lines_of_our_clients_need_the_wheel_and_nothing_else(
    base_install: Installation, addressed: Callable[[str], str], client: str, printed: str
) -> None:
    done = base_install.run("python", "-c", addressed(client))

    assert done.returncode == 0, done.stderr
    assert re.search(printed, done.stdout.strip()), done.stdout
    assert done.stderr == ""  # where no action came in time, our clients say so and go on


def test_the_lines_of_openais_client_are_answered(installed: Installation, addressed: Callable[[str], str]) -> None:
    done = installed.run("python", "-c", addressed("OpenAI"))

    assert done.returncode == 0, done.stderr
    assert done.stdout  # a model with random weights says anything


def test_every_client_of_the_page_is_tried_here() -> None:
    assert sorted(programs()) == ["A robot that plays chunks", "HTTP", "MineRL", "OpenAI", "WebSocket", "gRPC"]
