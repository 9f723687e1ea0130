"""HAProxy's side doors are shut."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import psutil
import pytest
from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE

from training.cluster.loopback import haproxy_on_loopback
from training.cluster.ports import free_port

CONFIG = """frontend prometheus
    bind :9101
    mode http
frontend http_frontend
    bind *:8000
listen stats
  bind *:8404
  stats enable
"""


def test_metrics_and_statistics_are_bound_to_loopback_and_the_application_where_it_was_told(tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG)
    program = haproxy_on_loopback(tmp_path, metrics_port=9101, stats_port=8404)
    subprocess.run([program, "-v", "-f", config], check=True, capture_output=True, timeout=30)
    binds = [line.strip() for line in config.read_text().splitlines() if "bind" in line]
    assert binds == ["bind 127.0.0.1:9101", "bind *:8000", "bind 127.0.0.1:8404"]


def test_the_application_is_told_the_address_of_its_clients(tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG)
    program = haproxy_on_loopback(tmp_path, metrics_port=9101, stats_port=8404)
    subprocess.run([program, "-v", "-f", config], check=True, capture_output=True, timeout=30)
    frontends = config.read_text().split("frontend ")
    assert ["option forwardfor" in frontend for frontend in frontends] == [False, False, True]


def test_haproxy_does_not_splice_so_that_it_notices_when_a_client_leaves(tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text("defaults\n    option splice-request\n    option splice-response\n    option abortonclose\n")
    program = haproxy_on_loopback(tmp_path, metrics_port=9101, stats_port=8404)
    subprocess.run([program, "-v", "-f", config], check=True, capture_output=True, timeout=30)
    assert config.read_text() == "defaults\n    option abortonclose\n"


def test_rays_template_still_writes_the_lines_that_are_rewritten() -> None:
    lines = [line.strip() for line in HAPROXY_CONFIG_TEMPLATE.splitlines()]
    assert "bind :{{ config.metrics_port }}" in lines
    assert "bind *:{{ config.stats_port }}" in lines
    assert {"option splice-request", "option splice-response", "option abortonclose"} <= set(lines)
    assert "frontend http_frontend" in HAPROXY_CONFIG_TEMPLATE.splitlines()


RUNNING = """defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend prometheus
    bind :{metrics}
    no log
listen stats
  bind *:{stats}
  stats enable
"""


def test_a_running_haproxy_listens_on_loopback_alone(tmp_path: Path) -> None:
    metrics, stats = free_port(), free_port()
    config = tmp_path / "haproxy.cfg"
    config.write_text(RUNNING.format(metrics=metrics, stats=stats))
    program = haproxy_on_loopback(tmp_path, metrics, stats)
    with subprocess.Popen([program, "-db", "-f", config]) as process:
        try:
            assert listening(process) == {("127.0.0.1", metrics), ("127.0.0.1", stats)}
        finally:
            process.terminate()


def listening(process: subprocess.Popen[bytes]) -> set[tuple[str, int]]:
    """The two addresses of a process, as soon as it listens on them."""
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        found = psutil.Process(process.pid).net_connections(kind="tcp")
        addresses = {(c.laddr.ip, c.laddr.port) for c in found if c.status == psutil.CONN_LISTEN}
        if len(addresses) == 2:
            return addresses
        time.sleep(0.02)
    pytest.fail("HAProxy does not listen")
