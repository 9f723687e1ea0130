"""Policies are loaded and unloaded over HTTP, through an ingress with all its routes and a Serve in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from deployments.access.keys import new_key
from deployments.transports.http import ingress
from deployments.transports.loaded import Found
from tests.unit.deployments.transports.http.test_ingress import Replica
from tests.unit.deployments.transports.test_managed import Cluster, until

TEXT = {"name": "policy", "model": "m"}
NEW = {"model": "another", "request_deadline_s": 5.0}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(made, "handle", lambda name: Replica())
    return made


async def opened(monkeypatch: pytest.MonkeyPatch, cluster: Cluster | None, **config: Any) -> httpx.AsyncClient:
    context = SimpleNamespace(app_name="rayward", deployment="ingress", servable_object=None)
    monkeypatch.setattr("ray.serve.get_replica_context", lambda: context)
    monkeypatch.setattr("ray.serve.get_deployment_handle", lambda name, app: Replica())
    written: Any = next(c for c in ingress.Ingress.__mro__ if c.__name__ == "Ingress" and "_policy" in vars(c))
    context.servable_object = object.__new__(written)
    manage = None if cluster is None else lambda app, deployment: cluster
    written.__init__(context.servable_object, {"policies": [TEXT], **config}, manage)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=ingress.api), base_url="http://test")


@pytest.fixture
async def client(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    async with await opened(monkeypatch, cluster, http={"manage_policies": True}) as opened_client:
        yield opened_client


async def told(client: httpx.AsyncClient, name: str) -> dict[str, Any] | None:
    """What GET /policies says of one."""
    listed = (await client.get("/policies")).json()["policies"]
    return next((policy for policy in listed if policy["name"] == name), None)


async def becomes(client: httpx.AsyncClient, cluster: Cluster, state: Any, message: str = "") -> None:
    """Serve has come so far with the new policy, and the ingress has seen it."""
    await until(lambda: "new" in cluster.running)
    cluster.running["new"] = Found(state, message)
    async with asyncio.timeout(20):
        while (await told(client, "new") or {}).get("state") != state:  # noqa: ASYNC110  # as a client has to
            await asyncio.sleep(0.05)


async def test_a_policy_is_loaded_answers_on_every_route_and_is_unloaded(
    client: httpx.AsyncClient, cluster: Cluster
) -> None:
    put = await client.put("/policies/new", json=NEW)
    assert (put.status_code, put.json()) == (202, {"name": "new", "kind": "vllm", "state": "loading"})
    await becomes(client, cluster, "ready")

    assert (await client.put("/policies/new", json=NEW)).status_code == 200
    assert await told(client, "new") == {
        "name": "new", "kind": "vllm", "state": "ready", "weight_version": 7, "from": "loaded",
    }  # fmt: skip
    assert [model["id"] for model in (await client.get("/v1/models")).json()["data"]] == ["policy", "new"]
    assert (await client.get("/v1/models/new")).status_code == 200
    assert set((await client.get("/health")).json()["policies"]) == {"policy", "new"}
    plain, chat = {"model": "new", "prompt": "You"}, {"model": "new", "messages": []}
    assert (await client.post("/v1/completions", json=plain)).json()["model"] == "new"
    assert (await client.post("/v1/chat/completions", json=chat)).json()["body"]["model"] == "new"

    assert (await client.delete("/policies/new")).json()["state"] == "unloading"
    for path, body in (("/v1/completions", plain), ("/v1/chat/completions", chat)):
        late = await client.post(path, json=body)
        assert (late.status_code, late.json()["kind"]) == (404, "not_found")
        assert "served: policy" in late.json()["message"]
    assert set((await client.get("/health")).json()["policies"]) == {"policy"}
    assert (await client.get("/v1/models/new")).status_code == 404


async def test_who_names_no_model_is_answered_as_before_the_load(client: httpx.AsyncClient, cluster: Cluster) -> None:
    await client.put("/policies/new", json=NEW)
    await becomes(client, cluster, "ready")
    assert (await client.post("/v1/completions", json={"prompt": "You"})).json()["model"] == "policy"


async def test_a_failed_load_tells_its_reason_and_leaves_the_rest_alone(
    client: httpx.AsyncClient, cluster: Cluster
) -> None:
    await client.put("/policies/new", json={"kind": "chunks", "checkpoint": "/none"})
    await becomes(client, cluster, "failed", "FileNotFoundError: /none")
    assert await told(client, "new") == {
        "name": "new", "kind": "chunks", "state": "failed", "message": "FileNotFoundError: /none", "from": "loaded",
    }  # fmt: skip
    assert (await client.get("/health")).status_code == 200
    assert (await client.post("/v1/completions", json={"prompt": "You"})).status_code == 200


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("new", {"kind": "chunks", "checkpiont": "/c"}, "policy.checkpiont: unknown key. Did you mean 'checkpoint'?"),
        ("new", {"kind": "chunks"}, "policy.checkpoint: Field required"),
        ("new", {"kind": "robot", "checkpoint": "c"}, "policy.kind: there is no kind 'robot'"),
        ("new", {"model": "m", "replicas": {"num_cpus": -1}}, "policy.replicas.num_cpus: "),
        ("new", {"model": "m", "name": "other"}, "policy.name: the path says 'new', the body 'other'"),
        ("-new", {"model": "m"}, "policy.name: "),
    ],
)
async def test_a_configuration_that_is_none_is_refused_with_its_field(
    client: httpx.AsyncClient, cluster: Cluster, name: str, body: dict[str, Any], words: str
) -> None:
    answer = await client.put(f"/policies/{name}", json=body, headers={"x-request-id": "r1"})
    assert (answer.status_code, answer.json()["kind"]) == (422, "invalid_request")
    assert answer.json()["request_id"] == "r1"
    assert words in answer.json()["message"]
    assert not cluster.running


async def test_policies_of_the_file_stay_and_unknown_ones_are_not_found(client: httpx.AsyncClient) -> None:
    assert (await client.put("/policies/policy", json=TEXT)).status_code == 409
    assert (await client.delete("/policies/policy")).json()["kind"] == "conflict"
    assert (await client.delete("/policies/none")).status_code == 404


async def test_nothing_is_loaded_where_it_was_not_switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async with await opened(monkeypatch, None) as client:
        for answer in (await client.put("/policies/new", json=NEW), await client.delete("/policies/policy")):
            assert answer.status_code == 404
            assert "http.manage_policies" in answer.json()["message"]
        listed = (await client.get("/policies")).json()["policies"]
        assert [(policy["name"], policy["from"]) for policy in listed] == [("policy", "file")]


async def test_loading_needs_a_key_where_keys_are_configured(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_key("lab")
    monkeypatch.setenv("KEYS", key.line)
    http, access = {"manage_policies": True}, {"keys_variable": "KEYS"}
    async with await opened(monkeypatch, cluster, http=http, access=access) as client:
        assert (await client.put("/policies/new", json=NEW)).status_code == 401
        assert (await client.get("/policies")).status_code == 401
        assert not cluster.running
        allowed = await client.put("/policies/new", json=NEW, headers={"authorization": f"Bearer {key.key}"})
        assert allowed.status_code == 202
