"""The HTTP clients of policies that act, against a real server that answers as ours does."""

from __future__ import annotations

import asyncio
import base64
import io
import socket as sockets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from PIL import Image

from deployments.client.act import ActClient, AsyncActClient
from deployments.client.observing import Seen
from deployments.errors import PolicyError
from deployments.protocol.act import Committed
from tests.unit.deployments.transports.serving import http_server

FRAME = np.full((6, 8, 3), 51, np.uint8)
ANSWER = {
    "action": [1.0] * 7,
    "actions": [[1.0] * 7],
    "success": True,
    "info": {"vlm_response": "move forward"},
    "request_id": "7",
    "weight_version": 3,
    "parse_ok": True,
    "interventions": ["clipped"],
    "observation_age_ms": 5.0,
    "timing_ms": {"infer": 2.5},
}


class Server:
    """Answers every path with `answer`, and keeps what it was asked."""

    def __init__(self, answer: Callable[[], Awaitable[JSONResponse]] | None = None) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.requests: list[Request] = []
        self._answer = answer

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        app = FastAPI()

        @app.post("/{path:path}")
        async def any_path(request: Request) -> JSONResponse:
            self.requests.append(request)
            self.bodies.append(await request.json())
            return JSONResponse(ANSWER) if self._answer is None else await self._answer()

        async with http_server(app) as address:
            yield f"http://{address}"


def refusing(times: int, status: int, headers: dict[str, str] | None = None) -> Callable[[], Awaitable[JSONResponse]]:
    left = iter(range(times))

    async def answer() -> JSONResponse:
        if next(left, None) is None:
            return JSONResponse(ANSWER)
        return JSONResponse({"kind": "overloaded", "message": "full"}, status, headers)

    return answer


async def test_an_observation_is_answered_by_actions_and_what_there_is_to_say_of_them() -> None:
    server = Server()
    async with server.running() as url:
        with ActClient(url) as client:
            told = await asyncio.to_thread(client.act, Seen(images=[FRAME], instruction="lift", state=[0.5]))

    assert told.actions.shape == (1, 7)
    assert (told.request_id, told.weight_version, told.text) == ("7", 3, "move forward")
    assert (told.interventions, told.infer_ms, told.observation_age_ms) == (("clipped",), 2.5, 5.0)


async def test_what_was_seen_is_sent_in_fields_of_the_route() -> None:
    server = Server()
    question = Seen(
        images=[FRAME, None],
        instruction="lift",
        state=[0.5],
        committed=Committed(np.ones((2, 3), np.float32), 1),
        noise_seed=0,
    )
    async with server.running() as url:
        with ActClient(url, key="secret", policy="arm", session_id="robot 4", timeout_s=9) as client:
            await asyncio.to_thread(client.act, question)

    (body,), (request,) = server.bodies, server.requests
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(body.pop("images")[0]))))
    assert np.abs(image.astype(int) - FRAME).max() < 4
    assert body == {
        "instruction": "lift",
        "state": [0.5],
        "taken_unix_s": question.taken_unix_s,
        "prefix_action": [[1.0] * 3] * 2,
        "delay": 1,
        "seed": 0,
        "model": "arm",
    }
    assert (request.url.path, request.url.query) == ("/act", "format=dict")
    headers = request.headers
    assert (headers["authorization"], headers["x-session-id"]) == ("Bearer secret", "robot 4")
    assert headers["x-request-id"] == question.request_id
    assert 0 < float(headers["x-timeout-s"]) <= 9


async def test_two_cameras_of_480_by_640_travel_in_less_than_80_kb_as_base64() -> None:
    server = Server()
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    async with server.running() as url:
        with ActClient(url) as client:
            await asyncio.to_thread(client.act, Seen(images=[noise, noise]))

    assert int(server.requests[0].headers["content-length"]) < 80_000


async def test_a_passing_failure_is_tried_again_with_the_same_id() -> None:
    server = Server(refusing(2, 429))
    async with server.running() as url:
        with ActClient(url) as client:
            await asyncio.to_thread(client.act, Seen(images=[FRAME]))

    assert len(server.requests) == 3
    assert len({request.headers["x-request-id"] for request in server.requests}) == 1


async def test_a_server_that_asks_for_more_time_than_there_is_is_not_asked_again() -> None:
    server = Server(refusing(1, 429, {"Retry-After": "60"}))
    async with server.running() as url:
        with ActClient(url, timeout_s=5) as client, pytest.raises(PolicyError) as error:
            await asyncio.to_thread(client.act, Seen(images=[FRAME]))

    assert (error.value.kind, error.value.retry_after_s) == ("overloaded", 60.0)
    assert len(server.requests) == 1


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with sockets.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, and not listening
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with ActClient(url, retries=1) as client, pytest.raises(PolicyError) as error:
            await asyncio.to_thread(client.act, Seen(images=[FRAME]))

    assert error.value.kind == "unavailable"


async def test_a_bare_list_is_no_answer_of_a_server_that_was_asked_for_a_dict() -> None:
    async def bare() -> JSONResponse:
        return JSONResponse([0.0] * 7)

    async with Server(bare).running() as url:
        with ActClient(url) as client, pytest.raises(PolicyError, match="list, not an object"):
            await asyncio.to_thread(client.act, Seen(images=[FRAME]))


@pytest.mark.parametrize("shape", ["list", "dict"])
async def test_an_arm_is_asked_as_its_stock_clients_ask_and_may_answer_a_bare_list(shape: str) -> None:
    async def answered() -> JSONResponse:
        return JSONResponse([0.5] * 7 if shape == "list" else {"action": [0.5] * 7, "success": False, "info": {}})

    server = Server(answered)
    async with server.running() as url:
        with ActClient(url) as client:
            told = await asyncio.to_thread(client.act_arm, Seen([FRAME], "lift", [0.25] * 8))

    (body,) = server.bodies
    image = body.pop("image")
    sent = np.frombuffer(base64.b64decode(image["__numpy__"]), image["dtype"]).reshape(image["shape"])
    assert np.array_equal(sent, FRAME), "nothing of the picture is lost"
    assert body == {"instruction": "lift", "proprio": [0.25] * 8}
    assert told.actions.tolist() == [[0.5] * 7]
    assert told.parse_ok is (shape == "list")


@pytest.mark.parametrize("answer", [["up"], {"action": None}, {"actions": [[1.0], [1.0, 2.0]]}, {"said": "no"}])
async def test_an_answer_without_an_action_is_an_error_of_the_server(answer: Any) -> None:
    async def answered() -> JSONResponse:
        return JSONResponse(answer)

    async with Server(answered).running() as url:
        with ActClient(url) as client, pytest.raises(PolicyError, match="answered no action") as error:
            await asyncio.to_thread(client.act_arm, Seen([FRAME]))

    assert error.value.kind == "internal"


async def test_an_arm_without_a_frame_is_not_asked() -> None:
    with ActClient("http://127.0.0.1:1") as client, pytest.raises(PolicyError, match="one frame"):
        client.act_arm(Seen([None]))


async def test_the_asyncio_client_asks_alike() -> None:
    server = Server(refusing(1, 503))
    async with server.running() as url, AsyncActClient(url) as client:
        told = await client.act(Seen(images=[FRAME]))
        await client.reset()

    assert told.actions.shape == (1, 7)
    assert [request.url.path for request in server.requests] == ["/act", "/act", "/reset"]
