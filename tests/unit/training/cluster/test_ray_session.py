"""Which Ray a command takes, told apart without starting one."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.storage.owned import Owner
from training.cluster import started
from training.cluster.errors import ClusterError
from training.cluster.ray_session import (
    ADMIN_SOCKET,
    _new_folder,
    _own_environment,
    check_reachable,
    process_settings,
    ray_session,
)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port of loopback where nothing listens: bound, so that nobody else takes it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_an_address_without_a_ray_is_told_at_once(silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{silent_port}")
    with pytest.raises(ClusterError, match=r"no Ray answers at 127\.0\.0\.1:\d+ .*unset RAY_ADDRESS"), ray_session():
        pass


@pytest.mark.parametrize("address", ["ray://127.0.0.1:{}", "127.0.0.1:{}", "[::1]:{}"])
def test_every_form_of_an_address_is_tried(address: str, silent_port: int) -> None:
    with pytest.raises(ClusterError, match="no Ray answers"):
        check_reachable(address.format(silent_port))


def test_a_listening_address_is_accepted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_reachable(f"127.0.0.1:{server.getsockname()[1]}")


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder as a session makes it."""
    with tempfile.TemporaryDirectory(prefix="rayward-") as folder:
        yield Path(folder)


def test_vllms_sockets_lie_in_the_sessions_folder_if_their_paths_fit(short: Path) -> None:
    assert process_settings(short, {})["VLLM_RPC_BASE_PATH"] == str(short)
    assert "VLLM_RPC_BASE_PATH" not in process_settings(short / ("deep" * 20), {})


def test_the_sockets_of_haproxy_fit_below_the_sessions_folder(short: Path) -> None:
    """Serve puts the id of the node (56 characters) in front of the socket's name, HAProxy takes at most 97."""
    socket_path = Path(process_settings(short, {})["RAY_SERVE_HAPROXY_SOCKET_PATH"])
    assert len(str(socket_path.parent / ("0" * 56) / socket_path.name)) <= 97


def test_the_sockets_of_haproxy_fit_where_the_folder_for_temporary_files_has_a_long_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = _new_folder()
    try:
        assert len(str(folder / ("0" * 56) / ADMIN_SOCKET)) <= 97
        assert not list(tmp_path.iterdir()), "a folder that is not used was left"
    finally:
        folder.rmdir()


def test_what_a_killed_process_held_in_memory_goes_with_the_session(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-C a replica's copy of the weights stayed in /dev/shm."""
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    with _own_environment():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        started_at = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
        held = short / f"rayward-weights-{child.pid}-{started_at}-{Owner.current().place}-x"
        held.mkdir()
    child.wait(10)
    assert not held.exists()


def test_a_proxy_may_take_as_long_to_start_as_the_command_waits_for_it(short: Path) -> None:
    from ray.serve._private.constants import HTTP_PROXY_TIMEOUT

    assert float(process_settings(short, {})["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"]) >= HTTP_PROXY_TIMEOUT


def test_what_a_user_has_set_stays(short: Path) -> None:
    theirs = {"RAY_SERVE_HAPROXY_METRICS_PORT": "9101", "RAY_DEDUP_LOGS": "0"}
    assert not theirs.keys() & process_settings(short, theirs).keys()


def test_a_command_inside_another_ray_of_ours_does_not_take_its_ports(short: Path) -> None:
    around = process_settings(short / "around", {}) | {started.MARK: "theirs", "RAY_DEDUP_LOGS": "0"}
    inside = process_settings(short, around)
    ports = {name for name in around if name.endswith("_PORT")}
    assert len(ports) == 4
    assert all(inside[name] != around[name] for name in ports)
    assert inside["RAY_SERVE_HAPROXY_SERVER_STATE_BASE"] == str(short)
    assert "RAY_DEDUP_LOGS" not in inside, "what is the same for every Ray stays as the user has set it"
