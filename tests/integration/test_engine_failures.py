"""An engine that dies or stands still takes its replica along, and another one answers."""

from __future__ import annotations

import signal
from typing import Any

import httpx
import psutil
import pytest

from tests.integration.processes import wait_until

pytestmark = pytest.mark.integration
BODY = {"model": "policy", "prompt": "You play X.", "max_tokens": 4, "temperature": 0}


def replica(stack: Any) -> dict[str, Any]:
    """What the policy's replica tells about itself; nothing while there is none."""
    told: dict[str, Any] = httpx.get(f"{stack.http}/health", timeout=30).json().get("policies", {}).get("policy", {})
    return told if told.get("ready") else {}


def engine_process(pid: int) -> psutil.Process:
    [engine] = [p for p in psutil.Process(pid).children(recursive=True) if "EngineCore" in p.name()]
    return engine


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["stands still", "died"])
def test_a_replica_whose_engine_no_longer_works_is_replaced_and_the_next_one_answers(
    stack: Any, number: signal.Signals
) -> None:
    """SIGSTOP: the process is there, vLLM calls it healthy, and no request is ever answered; so it is with a dead input
    thread."""
    before = replica(stack)
    engine = engine_process(before["pid"])
    engine.send_signal(number)
    failed = httpx.post(f"{stack.http}/v1/completions", json=BODY, timeout=120)
    assert failed.status_code in (408, 503), failed.text  # its deadline may come before the engine is given up
    wait_until(
        lambda: replica(stack).get("pid", before["pid"]) != before["pid"], 150, lambda: f"still {replica(stack)}"
    )
    answer = httpx.post(f"{stack.http}/v1/completions", json=BODY, timeout=60)
    assert answer.status_code == 200, answer.text
    assert not psutil.pid_exists(before["pid"])
    assert not engine.is_running(), "a stopped engine does not outlive its replica"
