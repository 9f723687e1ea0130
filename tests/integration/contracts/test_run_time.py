"""Policies that come, follow their store and go while the application answers: not one request of others fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from deployments.client.grpc import RobotClient
from deployments.client.observing import Seen
from deployments.client.websocket import SocketClient
from deployments.errors import PolicyError
from deployments.weights.store import WeightStore
from tests.integration.contracts.robots import RobotServer

pytestmark = pytest.mark.integration

LIMIT_S = 120.0
IMAGE = np.zeros((16, 16, 3), np.uint8)
BODY = {"image": IMAGE.tolist(), "instruction": "fold the towel", "state": [0.1, 0.2]}


@pytest.fixture
def client(robots: RobotServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{robots.http}", timeout=30) as opened:
        yield opened


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> WeightStore:
    return WeightStore(str(tmp_path_factory.mktemp("followed")))


def configuration(store: WeightStore, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "chunks",
        "checkpoint": "tiny:robot",
        "device": "cpu",
        "weights_root": store.root,
        "follow": True,
        "follow_period_s": 0.1,
        "request_deadline_s": 20.0,
        "replicas": {"drain_s": 10.0, "num_cpus": 0.5},
        **changes,
    }


def state_of(client: httpx.Client, name: str) -> dict[str, Any]:
    listed = client.get("/policies").json()["policies"]
    return next((policy for policy in listed if policy["name"] == name), {"state": "gone"})


def until_is(client: httpx.Client, name: str, state: str) -> dict[str, Any]:
    """What GET /policies says of the policy, once it is in that state."""
    ends_s = time.monotonic() + LIMIT_S
    while (found := state_of(client, name))["state"] != state:
        assert time.monotonic() < ends_s, found
        assert found["state"] != "failed", found
        time.sleep(0.2)
    return found


def loaded(client: httpx.Client, store: WeightStore) -> None:
    """Has the policy `later` served; at once where it is already."""
    assert client.put("/policies/later", json=configuration(store)).status_code in (200, 202)
    until_is(client, "later", "ready")


class Asked(threading.Thread):
    """Asks a policy all the time, without a second try; keeps what it was answered."""

    def __init__(self, base_url: str, policy: str) -> None:
        super().__init__(daemon=True)
        self._base_url, self._policy = base_url, policy
        self.over = threading.Event()
        self.answers: list[tuple[int, int, str]] = []  # status, version of the weights, body

    def run(self) -> None:
        with httpx.Client(base_url=self._base_url, timeout=60) as client:
            while not self.over.is_set():
                try:
                    answer = client.post(f"/policies/{self._policy}/act", json=BODY)
                except httpx.HTTPError as error:
                    self.answers.append((0, -1, repr(error)))
                    return
                version = int(answer.headers.get("x-weight-version", -1))
                self.answers.append((answer.status_code, version, "" if answer.is_success else answer.text))


@contextmanager
def asking(robots: RobotServer, policy: str, clients: int = 3) -> Iterator[list[Asked]]:
    """Clients that ask the policy inside of this."""
    asked = [Asked(f"http://{robots.http}", policy) for _ in range(clients)]
    for each in asked:
        each.start()
    try:
        yield asked
    finally:
        for each in asked:
            each.over.set()
        for each in asked:
            each.join(LIMIT_S)


@contextmanager
def all_answered(robots: RobotServer, policy: str) -> Iterator[list[Asked]]:
    """Clients ask the policy inside of this, and for a moment more, and none of them fails."""
    with asking(robots, policy) as asked:
        yield asked
        most = max(len(each.answers) for each in asked)
        until_answers(asked, lambda answers: len(answers) > most or any(answer[0] != 200 for answer in answers))
    answers = [answer for each in asked for answer in each.answers]
    assert [answer for answer in answers if answer[0] != 200] == []


def until_answers(asked: list[Asked], what: Callable[[list[tuple[int, int, str]]], bool]) -> None:
    """Returns once it holds for the answers of each client."""
    ends_s = time.monotonic() + LIMIT_S
    while not all(what(each.answers) for each in asked):
        assert time.monotonic() < ends_s, [each.answers[-1:] for each in asked]
        time.sleep(0.05)


def answered_by(version: int, answers: list[tuple[int, int, str]]) -> bool:
    return bool(answers) and answers[-1][1] >= version


def test_a_policy_takes_up_the_versions_of_its_store_without_a_failed_request(
    robots: RobotServer, client: httpx.Client, store: WeightStore, tmp_path: Path
) -> None:
    from deployments.chunks.checkpoint import load, tiny_checkpoint

    weights = load(tiny_checkpoint(tmp_path / "robot", seed=1)).state_dict()
    with all_answered(robots, "robot"):
        loaded(client, store)
    newest = store.latest() or 0
    with all_answered(robots, "later") as asked:
        for version in range(newest + 1, newest + 6):
            store.publish(version, weights.items())
            until_answers(asked, partial(answered_by, version))
    for each in asked:
        versions = [version for _, version, _ in each.answers]
        assert versions == sorted(versions)
    assert state_of(client, "later")["weight_version"] == newest + 5


def test_a_policy_is_loaded_asked_over_every_protocol_and_unloaded_without_a_failed_request(
    robots: RobotServer, client: httpx.Client, store: WeightStore
) -> None:
    seen = Seen(images=[IMAGE], instruction="fold the towel", state=[0.1, 0.2], noise_seed=3)
    with all_answered(robots, "robot"):
        loaded(client, store)
        assert client.put("/policies/later", json=configuration(store)).status_code == 200
        changed = client.put("/policies/later", json=configuration(store, flow_steps=3))
        assert (changed.status_code, changed.json()["kind"]) == (409, "conflict")
        with (
            SocketClient(f"ws://{robots.http}", policy="later") as socket,
            RobotClient(robots.grpc, policy="later") as rpc,
        ):
            over_socket, over_grpc = socket.act(seen).actions, rpc.act(seen).actions
        assert over_socket.shape == (10, 7)
        assert np.array_equal(over_socket, over_grpc)
        assert client.post("/act", json=BODY).status_code == 200, "who names none is answered by the file's policy"

        with asking(robots, "later") as asked:
            until_answers(asked, lambda answers: len(answers) > 3)
            assert client.delete("/policies/later").json()["state"] == "unloading"
            until_answers(asked, lambda answers: answers[-1][0] != 200)
        for each in asked:
            statuses = [status for status, _, _ in each.answers]
            assert statuses == sorted(statuses), "what was under way is answered, and nothing after the end"
            assert set(statuses) == {200, 404}
            assert '"kind":"not_found"' in each.answers[-1][2]
            assert "served: robot" in each.answers[-1][2]
        with RobotClient(robots.grpc, policy="later") as rpc, pytest.raises(PolicyError, match="no policy 'later'"):
            rpc.act(seen)
        until_is(client, "later", "gone")
    assert set(client.get("/health").json()["policies"]) == {"robot"}


def test_a_load_that_cannot_work_tells_why_and_leaves_the_rest_alone(
    robots: RobotServer, client: httpx.Client, store: WeightStore, tmp_path: Path
) -> None:
    none = str(tmp_path / "none")
    with all_answered(robots, "robot"):
        put = client.put("/policies/broken", json={"name": "broken", "model": none})
        assert (put.status_code, put.json()["state"]) == (202, "loading")
        ends_s = time.monotonic() + LIMIT_S
        while (found := state_of(client, "broken"))["state"] == "loading":
            assert time.monotonic() < ends_s
            time.sleep(0.2)
    assert found["state"] == "failed"
    assert none in found["message"]
    assert client.get("/health").json()["ready"] is True
    assert client.delete("/policies/broken").status_code == 202
    until_is(client, "broken", "gone")
