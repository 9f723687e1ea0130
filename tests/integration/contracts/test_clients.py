"""Our three robot clients on the real application: the same observation, the same actions."""

from __future__ import annotations

import numpy as np
import pytest

from deployments.client.act import ActClient
from deployments.client.chunk_player import ChunkPlayer, play
from deployments.client.grpc import RobotClient
from deployments.client.observing import Seen
from deployments.client.websocket import SocketClient
from tests.integration.contracts.robots import RobotServer

pytestmark = pytest.mark.integration

SCENE = np.tile(np.arange(120, dtype=np.uint8)[:, None, None], (1, 160, 3))


def seen() -> Seen:
    return Seen(images=[SCENE, SCENE], instruction="fold the towel", state=[0.1, 0.2, 0.3], noise_seed=3)


def test_http_websocket_and_grpc_give_bit_equal_actions(robots: RobotServer) -> None:
    with (
        ActClient(f"http://{robots.http}") as http,
        SocketClient(f"ws://{robots.http}") as socket,
        RobotClient(robots.grpc) as rpc,
    ):
        answers = [client.act(seen()).actions for client in (http, socket, rpc)]

    assert answers[0].shape == (10, 7)
    assert np.array_equal(answers[0], answers[1])
    assert np.array_equal(answers[0], answers[2])


def test_a_robot_plays_chunks_at_its_control_rate(robots: RobotServer) -> None:
    sent: list[np.ndarray] = []
    with RobotClient(robots.grpc) as client:
        player = ChunkPlayer(client.act, max_delay=4)
        play(player, seen, sent.append, control_hz=50, is_over=lambda: len(sent) >= 30)

    assert np.shape(sent) == (30, 7)
    assert player.last_error is None
