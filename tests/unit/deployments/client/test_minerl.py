"""A MineRL player's client, against a real server of the test's."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from deployments.client.minerl import MineRLClient
from deployments.errors import PolicyError
from deployments.protocol.game import no_op
from tests.unit.deployments.transports.serving import http_server

POV = np.full((36, 64, 3), 51, np.uint8)
TASK = "MineRLBasaltFindCave-v0"


class Server:
    """Jumps and looks up; keeps what it was asked."""

    def __init__(self, refusal: JSONResponse | None = None, ready: bool = True) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.resets = 0
        self.refusal = refusal
        self._ready = ready

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        app = FastAPI()

        @app.post("/get_action")
        async def get_action(request: Request) -> JSONResponse:
            self.bodies.append(await request.json())
            if self.refusal is not None:
                return self.refusal
            action = {**no_op(), "jump": 1, "camera": [-5.0, 2.0]}
            step = self.bodies[-1]["step"]
            return JSONResponse({"action": action, "reasoning": "a wall", "step": step, "parse_ok": True})

        @app.post("/reset")
        async def reset() -> dict[str, str]:
            self.resets += 1
            return {"status": "reset successful"}

        @app.get("/health")
        async def health() -> JSONResponse:
            return JSONResponse({"status": "healthy" if self._ready else "unhealthy"}, 200 if self._ready else 503)

        async with http_server(app) as address:
            yield f"http://{address}"


async def played(client: MineRLClient, steps: int, **settings: Any) -> list[dict[str, Any]]:
    return [await asyncio.to_thread(client.get_action, {"pov": POV}, TASK, **settings) for _ in range(steps)]


async def test_an_action_has_every_key_and_a_camera_that_the_environment_takes() -> None:
    server = Server()
    async with server.running() as url:
        with MineRLClient(url) as client:
            (action,) = await played(client, 1, temperature=0.2)

    assert set(action) == set(no_op())
    assert action["jump"] == 1
    assert action["camera"].dtype == np.float32
    assert action["camera"].tolist() == [-5.0, 2.0]
    assert (server.bodies[0]["task_name"], server.bodies[0]["temperature"]) == (TASK, 0.2)


async def test_the_last_frames_go_along_with_what_was_done_on_them() -> None:
    server = Server()
    async with server.running() as url:
        with MineRLClient(url, max_history_length=3) as client:
            await played(client, 5)

    assert [len(body["history"]) for body in server.bodies] == [1, 2, 3, 3, 3]
    assert [step["action"] and step["action"]["jump"] for step in server.bodies[-1]["history"]] == [1, 1, None]
    assert [body["step"] for body in server.bodies] == [0, 1, 2, 3, 4]


async def test_a_new_episode_begins_without_the_old_one() -> None:
    server = Server()
    async with server.running() as url:
        with MineRLClient(url) as client:
            await played(client, 2)
            await asyncio.to_thread(client.reset)
            await played(client, 1)

    assert (len(server.bodies[-1]["history"]), server.bodies[-1]["step"], server.resets) == (1, 0, 1)


async def test_while_the_server_is_away_nothing_is_done_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with sockets.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, and not listening
        with MineRLClient(f"http://127.0.0.1:{free.getsockname()[1]}", retries=0) as client:
            (action,) = await played(client, 1)
            assert not await asyncio.to_thread(client.check_health)
            await asyncio.to_thread(client.reset)

    assert {**action, "camera": action["camera"].tolist()} == no_op()
    assert "no action came" in caplog.text


async def test_a_strict_client_says_that_the_server_is_away() -> None:
    with sockets.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, and not listening
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with MineRLClient(url, retries=0, strict=True) as client:
            with pytest.raises(PolicyError, match="cannot be reached"):
                await played(client, 1)
            with pytest.raises(PolicyError, match="cannot be reached"):
                await asyncio.to_thread(client.reset)


async def test_it_tells_whether_the_newest_answer_could_be_read() -> None:
    server = Server()
    async with server.running() as url:
        with MineRLClient(url) as client:
            await played(client, 1)
            assert client.parse_ok
            server.refusal = JSONResponse({"action": no_op(), "reasoning": "?", "step": 1, "parse_ok": False})
            await played(client, 1)
            assert not client.parse_ok


async def test_a_mistake_is_not_hidden_behind_an_idle_player() -> None:
    refusal = JSONResponse({"kind": "unauthenticated", "message": "no key"}, 401)
    async with Server(refusal).running() as url:
        with MineRLClient(url) as client, pytest.raises(PolicyError, match="no key"):
            await played(client, 1)


@pytest.mark.parametrize("ready", [True, False])
async def test_health_says_whether_the_server_is_ready(ready: bool) -> None:
    async with Server(ready=ready).running() as url:
        with MineRLClient(url) as client:
            assert await asyncio.to_thread(client.check_health) is ready


async def test_episodes_are_recorded_frame_by_frame_and_numbered_on(tmp_path: Path) -> None:
    async with Server().running() as url:
        for _ in range(2):
            with MineRLClient(url, record_to=tmp_path) as client:
                await asyncio.to_thread(client.reset)
                await played(client, 2)

    found = recorded(tmp_path)
    assert list(found) == ["episode_0000", "episode_0001"]
    done = [(line["step"], line["action"]["jump"], line["reasoning"]) for line in found["episode_0001"]]
    assert done == [(0, 1, "a wall"), (1, 1, "a wall")]


def recorded(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Name -> lines of each episode, whose frames are there."""
    found = {}
    for episode in sorted(folder.iterdir()):
        found[episode.name] = [json.loads(line) for line in (episode / "steps.jsonl").read_text().splitlines()]
        assert all((episode / line["image"]).stat().st_size for line in found[episode.name])
    return found
