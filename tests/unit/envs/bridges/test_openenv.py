"""Episodes on a server that speaks OpenEnv's messages, as openenv-core 0.3 sends them."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from envs import registry
from envs.base import EnvUsageError, EpisodeOver


class Guessing:
    """A number from 0 to 9 is to be found; each connection has a number of its own."""

    def __init__(self) -> None:
        self.sessions_over = threading.Semaphore(0)
        self.server: Server = serve(self.session, "127.0.0.1", 0)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.socket.getsockname()[1]}"

    def session(self, connection: ServerConnection) -> None:
        number = 0
        try:
            while True:
                message = json.loads(connection.recv())
                if message["type"] == "reset":
                    number = random.Random(message["data"]["seed"]).randrange(10)
                    connection.send(json.dumps(observed("guess", None, False)))
                else:
                    connection.send(json.dumps(self.answer(message["data"], number)))
        except ConnectionClosed:
            self.sessions_over.release()

    def answer(self, action: dict[str, Any], number: int) -> dict[str, Any]:
        guess = action.get("number", action.get("message"))
        if guess == "crash":
            return {"type": "error", "data": {"message": "disk is full", "code": "EXECUTION_ERROR"}}
        if set(action) - {"number", "message"} or not str(guess).isdigit():
            errors = [{"loc": ["number"], "msg": "not a number"}]
            return {
                "type": "error",
                "data": {"message": "Invalid message", "code": "VALIDATION_ERROR", "errors": errors},
            }
        if guess == 99:
            return observed("over, and nobody knows how", None, True)
        right = int(guess) == number
        return observed("right" if right else "wrong", float(right), right)

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()


def observed(text: str, reward: float | None, done: bool) -> dict[str, Any]:
    return {"type": "observation", "data": {"observation": {"text": text, "left": 3}, "reward": reward, "done": done}}


@pytest.fixture
def server() -> Iterator[Guessing]:
    server = Guessing()
    yield server
    server.close()


def action(number: object) -> str:
    return f"I try <action>{json.dumps({'number': number})}</action>"


def test_an_episode_is_played_and_two_at_once_do_not_disturb_each_other(server: Guessing) -> None:
    numbers = [random.Random(seed).randrange(10) for seed in (3, 4)]
    games = [registry.make(f"openenv:{server.url}", observation_field="text") for _ in numbers]

    assert [game.reset(seed).text for game, seed in zip(games, (3, 4), strict=True)] == ["guess", "guess"]
    for game, number in zip(games, numbers, strict=True):
        wrong = game.step(action((number + 1) % 10))
        assert (wrong.observation.text, wrong.reward, wrong.terminated, wrong.success) == ("wrong", 0.0, False, False)
    for game, number in zip(games, numbers, strict=True):
        right = game.step(action(number))
        assert (right.observation.text, right.reward, right.terminated, right.success) == ("right", 1.0, True, True)
        with pytest.raises(EpisodeOver):
            game.step(action(1))
        game.close()
        assert server.sessions_over.acquire(timeout=60)


@pytest.mark.parametrize("answer", ["7", "<action>7</action>", "<action>{</action>", action("many"), action([7])])
def test_a_malformed_action_is_data_and_costs_a_step(server: Guessing, answer: str) -> None:
    game = registry.make(f"openenv:{server.url}", observation_field="text", max_steps=2)
    game.reset(3)

    result = game.step(answer)

    assert dict(result.info) == {"parse_ok": False, "illegal": True}
    assert (result.reward, result.terminated, result.truncated) == (0.0, False, False)
    assert result.observation.text.endswith("\nguess")
    assert game.step(answer).truncated
    game.close()


def test_the_answer_as_a_whole_may_be_the_action_and_all_of_the_observation_is_shown(server: Guessing) -> None:
    game = registry.make(f"openenv:{server.url}", action_field="message")
    assert json.loads(game.reset(3).text) == {"text": "guess", "left": 3}
    assert "JSON" not in game.spec.system_prompt
    assert game.step(str(random.Random(3).randrange(10))).success
    game.close()


def test_what_fails_on_the_server_is_a_fault_of_the_environment(server: Guessing) -> None:
    game = registry.make(f"openenv:{server.url}")
    game.reset(3)
    with pytest.raises(RuntimeError, match=r"disk is full \(EXECUTION_ERROR\)"):
        game.step(action("crash"))
    game.close()


def test_a_field_that_the_server_does_not_observe_is_named_with_those_it_does(server: Guessing) -> None:
    game = registry.make(f"openenv:{server.url}", observation_field="words")
    with pytest.raises(EnvUsageError, match="observes text, left, and no 'words'"):
        game.reset(3)
    game.close()


def test_a_server_that_does_not_answer_is_named(server: Guessing) -> None:
    url = server.url
    server.server.shutdown()
    with pytest.raises(EnvUsageError, match="no OpenEnv server answers at ws://127"):
        registry.make(f"openenv:{url}")
    with pytest.raises(EnvUsageError, match="is no OpenEnv server"):
        registry.make("openenv:somewhere")


def test_calls_of_a_server_run_in_a_thread() -> None:
    assert registry.load("openenv:http://somewhere").blocking


def test_an_end_without_a_reward_is_a_fault_and_no_zero(server: Guessing) -> None:
    game = registry.make(f"openenv:{server.url}", observation_field="text")
    game.reset(3)
    with pytest.raises(RuntimeError, match="ended the episode without a reward"):
        game.step(action(99))
    game.close()
