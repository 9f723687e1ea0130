"""`rayward eval --env` against a server on loopback, as a user types it."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from tests.unit.deployments.transports.serving import http_server
from training.commands import app

CAVE = ("--env", "cave", "--set", "env.kwargs.side=16", "--set", "env.kwargs.max_steps=4")


async def ends(*arguments: str) -> int:
    """The exit code of `rayward eval`, which runs in a thread: this loop is its server."""
    return await asyncio.to_thread(app.run, ["eval", *arguments])


def server(keys: list[str]) -> FastAPI:
    """Presses ESC at once: every episode is lost."""
    routes = FastAPI()

    @routes.post("/reset")
    async def reset() -> dict[str, str]:
        return {"status": "reset successful"}

    @routes.post("/get_action")
    async def get_action(request: Request) -> JSONResponse:
        keys.append(request.headers["authorization"])
        model = (await request.json())["model"]
        return JSONResponse({"action": {"ESC": 1}, "reasoning": model, "step": 0, "parse_ok": False})

    return routes


async def test_success_is_shown_with_its_interval_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.commands.evaluate_served.console.width", 200)
    (tmp_path / "key").write_text("secret\n")
    keys: list[str] = []
    async with http_server(server(keys)) as host:
        options = ("--url", f"http://{host}", "--policy", "player", "--key-file", str(tmp_path / "key"))
        code = await ends(*CAVE, *options, "--episodes", "5", "--json", str(tmp_path / "result.json"))

    out = capsys.readouterr().out
    assert code == 0
    assert "5 situations from seed 1000000" in out
    assert "0.000 [0.000, 0.434]" in out
    assert "split heldout" in out
    assert set(keys) == {"Bearer secret"}
    written = json.loads((tmp_path / "result.json").read_text())
    assert (written["played"], written["server_lost"], written["unreadable"]) == (5, 0, 1.0)
    assert [outcome["seed"] for outcome in written["outcomes"]] == list(range(1_000_000, 1_000_005))
    assert "secret" not in (tmp_path / "result.json").read_text()


async def test_a_server_that_is_not_there_is_an_error_and_no_lost_episode(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with sockets.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, and not listening
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        code = await ends(*CAVE, "--url", url, "--episodes", "4", "--timeout-s", "0.05", "--parallel", "1")

    shown = capsys.readouterr()
    assert code == 1
    assert "the server was lost in 4 of 4 episodes" in shown.err
    assert "cannot be reached" in shown.err
    assert "0.000" not in shown.out.replace("0.000 │", "")


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["--env", "arm"], "give --url http://HOST:8000"),
        (["--env", "arm", "--url", "http://x", "--grpc", "x:1"], "and not both"),
        (["--url", "http://x"], "with --env arm or cave"),
        (["--env", "arm", "--url", "gpu-machine:8000"], "must begin with http://"),
        (["--env", "arm", "--grpc", "http://x:1"], "must be HOST:PORT"),
        (["--env", "cave", "--grpc", "x:1"], "give --url instead"),
        (["--env", "key_door", "--url", "http://x"], "give --config and --model"),
        (["--env", "arm", "--url", "http://x", "--set", "env.kwargs.tusk=pick"], "Did you mean 'task'"),
        (["--env", "arm", "--url", "http://x", "--set", "env.kwarg.task=pick"], "--set env.kwarg.task has no effect"),
        (["--env", "arm", "--url", "http://x", "--set", "sampling.temperature=0.5"], "what has: env.kwargs"),
        (["--env", "arm", "--url", "http://x", "--run", "y"], "leave out --config, --run"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_a_wrong_call_is_answered_with_what_to_do(
    arguments: list[str], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["eval", *arguments]) == 1
    assert advice in capsys.readouterr().err
