"""`rayward load | unload` against the routes of a running application, whose Serve is in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deployments.access.keys import new_key
from deployments.client import policies
from deployments.transports.http import ingress
from deployments.transports.loaded import Found
from tests.unit.deployments.transports.http.test_ingress import Replica
from tests.unit.deployments.transports.http.test_manage import opened
from tests.unit.deployments.transports.serving import http_server
from tests.unit.deployments.transports.test_managed import Cluster, until
from training.commands import app


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(policies, "PERIOD_S", 0.01)
    made = Cluster()
    monkeypatch.setattr(made, "handle", lambda name: Replica())
    return made


@pytest.fixture
async def address(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    async with await opened(monkeypatch, cluster, http={"manage_policies": True}), http_server(ingress.api) as host:
        yield f"http://{host}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    written = tmp_path / "new.yaml"
    written.write_text("name: new\nmodel: another\n")
    return written


async def ends(*arguments: str) -> int:
    """The exit code of a command, which runs in a thread: this loop is its server."""
    return await asyncio.to_thread(app.run, list(arguments))


async def test_a_policy_of_a_file_is_loaded_and_unloaded(
    cluster: Cluster, address: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loading = asyncio.ensure_future(ends("load", str(file), "--address", address))
    await until(lambda: "new" in cluster.running)
    cluster.running["new"] = Found("ready")
    assert await loading == 0
    assert f"new answers at {address}" in capsys.readouterr().out
    assert cluster.policies["new"].name == "new"

    unloading = asyncio.ensure_future(ends("unload", "new", "--address", address))
    await until(lambda: cluster.deleted == ["new"])
    assert not unloading.done()
    del cluster.running["new"]
    assert await unloading == 0


async def test_a_load_that_fails_says_why(
    cluster: Cluster, address: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loading = asyncio.ensure_future(ends("load", str(file), "--address", address))
    await until(lambda: "new" in cluster.running)
    cluster.running["new"] = Found("failed", "ConfigError: no weights")
    assert await loading == 1
    assert "the policy 'new' could not be loaded: ConfigError: no weights" in capsys.readouterr().err


async def test_a_load_that_takes_too_long_is_told_and_goes_on(
    cluster: Cluster, address: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await ends("load", str(file), "--address", address, "--wait-s", "0") == 1
    assert "the policy 'new' is loading after 0 s" in capsys.readouterr().err
    assert not cluster.deleted


async def test_a_file_that_configures_no_policy_is_told_before_anybody_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("kind: chunks\n")
    assert await ends("load", str(wrong), "--address", "http://127.0.0.1:1") == 1
    assert "policy.checkpoint: Field required" in capsys.readouterr().err


async def test_an_unknown_policy_cannot_be_unloaded(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await ends("unload", "none", "--address", address) == 1
    assert "no policy 'none' is loaded; served: policy" in capsys.readouterr().err


async def test_a_key_is_shown_where_the_application_requires_one(
    cluster: Cluster,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    key, key_file = new_key("lab"), tmp_path / "key"
    key_file.write_text(f"{key.key}\n")
    monkeypatch.setenv("KEYS", key.line)
    http, access = {"manage_policies": True}, {"keys_variable": "KEYS"}
    async with await opened(monkeypatch, cluster, http=http, access=access), http_server(ingress.api) as host:
        given = ["load", str(file), "--address", f"http://{host}", "--wait-s", "0"]
        assert await ends(*given) == 1
        assert "unauthenticated" in capsys.readouterr().err
        assert await ends(*given, "--key-file", str(key_file)) == 1
        assert "is loading after 0 s" in capsys.readouterr().err
