"""The environments that are played by a policy behind a server, and how each asks over its protocol.

`arm` asks `POST /act`, or gRPC's `RobotPolicyService`; `cave` asks `POST /get_action`, as MineRL's players do.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from configs.base import ConfigError
from deployments.client.act import ActClient
from deployments.client.grpc import RobotClient
from deployments.client.minerl import MineRLClient
from deployments.client.observing import Seen, Told
from deployments.errors import PolicyError
from deployments.protocol.act import Vector
from deployments.protocol.game import GameAction
from envs.base import Observation, check_settings
from envs.pixels.cave import Cave
from envs.robots.arm_control import ArmControl, ArmObservation
from training.evaluation.closed_loop import Answer, Moved, Player

Protocol = Literal["url", "grpc"]
ARM_NUMBERS = 7


@dataclass(frozen=True, slots=True)
class Server:
    """Where a policy is served: `address` is http://HOST:PORT, or for gRPC HOST:PORT. `policy`: needed where several
    could answer. `timeout_s`: of one question, all its tries together. `execute_steps`: actions of a chunk that are
    executed before the policy is asked again."""

    protocol: Protocol
    address: str
    policy: str | None = None
    key: str | None = None
    timeout_s: float = 60.0
    execute_steps: int = 8


class ArmGame:
    """A move is an action [7] of `ArmControl.step`; None: the arm stays."""

    def __init__(self, **settings: Any) -> None:
        self._control = ArmControl(**settings)

    def reset(self, seed: int) -> ArmObservation:
        return self._control.reset(seed)

    def step(self, move: Vector | None) -> Moved[ArmObservation]:
        step = self._control.step(move)
        return Moved(step.observation, step.success, step.success or step.truncated)


class CaveGame:
    """A move is an action as MineRL has it."""

    def __init__(self, **settings: Any) -> None:
        self.env = Cave(**settings)

    def reset(self, seed: int) -> Observation:
        return self.env.reset(seed)

    def step(self, move: Mapping[str, object]) -> Moved[Observation]:
        step = self.env.act(move)
        return Moved(step.observation, step.success, step.terminated or step.truncated)


ArmPlayer = Player[ArmObservation, Vector | None]
CavePlayer = Player[Observation, GameAction]


@contextmanager
def arm_over_http(server: Server, settings: Mapping[str, Any]) -> Iterator[tuple[ArmGame, ArmPlayer]]:
    """`POST /act` with `image`, `instruction` and `proprio`, as stock clients of arms ask."""
    with _act_client(server) as client:
        yield ArmGame(**settings), Player(lambda now: moves_of(client.act_arm(seen(now)), server), client.reset)


@contextmanager
def arm_over_grpc(server: Server, settings: Mapping[str, Any]) -> Iterator[tuple[ArmGame, ArmPlayer]]:
    """`GetActionChunk`; the frame goes as PNG, so that nothing of it is lost."""
    named = {"key": server.key, "policy": server.policy, "session_id": uuid.uuid4().hex}
    with RobotClient(server.address, timeout_s=server.timeout_s, encoding="png", **named) as client:
        yield ArmGame(**settings), Player(lambda now: moves_of(client.act(seen(now)), server))


@contextmanager
def cave_over_http(server: Server, settings: Mapping[str, Any]) -> Iterator[tuple[CaveGame, CavePlayer]]:
    """`POST /get_action` with the last frames. A task that BASALT has no name for goes by its own
    (`act.game.tasks` of the server describes it)."""
    game = CaveGame(**settings)
    task = game.env.spec.extra["minerl_task"] or game.env.spec.extra["task"]
    with MineRLClient(server.address, server.key, server.policy, server.timeout_s, strict=True) as client:

        def act(now: Observation) -> Answer[GameAction]:
            assert now.image is not None
            action = client.get_action(now.image, task)
            return Answer([action], client.parse_ok)

        yield game, Player(act, client.reset)


def _act_client(server: Server) -> ActClient:
    return ActClient(server.address, key=server.key, policy=server.policy, timeout_s=server.timeout_s)


def seen(now: ArmObservation) -> Seen:
    """The observation as a robot sends it. Over gRPC what a sampling policy draws follows from the state, so that an
    evaluation can be repeated; `POST /act` takes no seed."""
    return Seen([now.image], now.instruction, now.state, noise_seed=zlib.crc32(now.state.tobytes()))


def moves_of(told: Told, server: Server) -> Answer[Vector | None]:
    """The first `execute_steps` actions; one with a number that is not finite is a step in which the arm stays. Raises
    PolicyError for actions that are not the arm's."""
    if told.actions.ndim != 2 or not len(told.actions) or told.actions.shape[1] != ARM_NUMBERS:
        raise PolicyError(
            "invalid_request",
            f"the policy answers actions {list(told.actions.shape)}; the arm takes {ARM_NUMBERS} numbers each: name "
            "a policy of that arm with --policy",
        )
    actions = told.actions[: server.execute_steps]
    moves = [action if np.isfinite(action).all() else None for action in actions]
    return Answer(moves, told.parse_ok and bool(np.isfinite(actions).all()))


Open = Callable[[Server, Mapping[str, Any]], AbstractContextManager[Any]]
ROUTES: dict[str, dict[Protocol, Open]] = {
    "arm": {"url": arm_over_http, "grpc": arm_over_grpc},
    "cave": {"url": cave_over_http},
}
MADE_OF: dict[str, Callable[..., Any]] = {"arm": ArmControl, "cave": Cave}


def episodes_of(env: str, server: Server, settings: Mapping[str, Any]) -> Callable[[], AbstractContextManager[Any]]:
    """What `closed_loop.play_all` opens for each episode.

    Raises ConfigError for an environment or a protocol that is not played so, SettingError for a setting that the
    environment does not take.
    """
    if env not in ROUTES:
        raise ConfigError(
            f"no policy that is served plays {env!r}; {' and '.join(ROUTES)} are played so. For a model of {env!r} "
            "give --config and --model, or --run, instead of --env"
        )
    routes = ROUTES[env]
    if server.protocol not in routes:
        raise ConfigError(f"{env} is not played over --{server.protocol}: give --{' or --'.join(routes)} instead")
    check_settings(MADE_OF[env], settings)
    MADE_OF[env](**settings)  # a wrong value is told before anything is asked
    return partial(routes[server.protocol], server, settings)
