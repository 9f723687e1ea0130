"""The body of /health and of /."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from configs.serving import ServeConfig
from deployments.acting.counts import Counts
from deployments.transports.http import health as module
from deployments.transports.http.health import acting_metrics, health, root, statuses

CONFIG = ServeConfig.parse(
    {
        "policies": [
            {"name": "text", "model": "m", "request_deadline_s": 30, "replicas": {"max_ongoing_requests": 64}},
            {
                "name": "api", "kind": "provider", "model": "openai/gpt-4o", "concurrency": 8,
                "rate_limits": "limits.yaml", "replicas": {"max_replicas": 2},
            },
        ]
    }
)  # fmt: skip
WELL = {"ready": True, "device": "cpu"}


def test_an_application_is_healthy_while_every_policy_answers() -> None:
    assert health(CONFIG, {"text": WELL, "api": WELL}, 0.0)["status"] == "healthy"
    told = health(CONFIG, {"text": WELL, "api": {"ready": False}}, 0.0)
    assert (told["status"], told["ready"], told["model_loaded"]) == ("unhealthy", False, False)


def test_limits_are_those_of_all_replicas_together() -> None:
    told = health(CONFIG, {"text": WELL, "api": WELL}, 12.0)
    assert (told["timestamp"], told["timeout"], told["concurrency_limit"]) == (12.0, 120.0, 64 + 2 * 8)
    assert told["rate_limits_configured"] is True


def test_a_gpu_is_told_by_what_the_replicas_run_on() -> None:
    assert health(CONFIG, {"text": WELL, "api": {"device": "api"}}, 0.0)["gpu_available"] is False
    assert health(CONFIG, {"text": {"device": "cuda"}}, 0.0)["gpu_available"] is True


def test_the_root_names_policies_and_endpoints() -> None:
    told = root(CONFIG, ["/act"])
    assert (told["name"], told["model"], told["status"], told["endpoints"]) == (
        "rayward",
        "text, api",
        "running",
        ["/act"],
    )


def test_what_happened_to_answers_is_told_by_policy_and_kind() -> None:
    counts = Counts()
    counts.intervened("arm", ("clipped", "unparsed"))
    counts.intervened("arm", ("clipped",))
    lines = acting_metrics(counts).splitlines()
    assert 'rayward_acting_interventions_total{policy="arm",kind="clipped"} 2' in lines
    assert 'rayward_acting_interventions_total{policy="arm",kind="unparsed"} 1' in lines


async def test_a_silent_replica_does_not_keep_others_from_being_heard(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "STATUS_LIMIT_S", 0.05)

    async def silent() -> Any:
        await asyncio.Event().wait()

    async def well() -> Any:
        return WELL

    handles = {
        name: SimpleNamespace(status=SimpleNamespace(remote=answer)) for name, answer in (("a", silent), ("b", well))
    }
    found = await statuses(handles)
    assert found["b"] == WELL
    assert found["a"] == {"policy": "a", "ready": False, "message": "TimeoutError"}
