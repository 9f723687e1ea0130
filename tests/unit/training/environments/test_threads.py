"""The thread of an environment that blocks, and what it frees when a call that was given up returns after all."""

from __future__ import annotations

import asyncio
import threading

import pytest

from envs.games.tictactoe import TicTacToe
from training.environments.calls import EnvCallFailed, EnvCalls, Hooks
from training.environments.threads import CallThread


async def test_calls_run_in_one_thread_and_their_errors_reach_the_caller() -> None:
    thread = CallThread("calls")
    assert await thread.run(threading.get_ident) == await thread.run(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)
    thread.later(lambda: 1 // 0)  # nobody is told, and the thread goes on
    assert await thread.run(lambda: 7) == 7
    thread.end()


async def test_an_environment_that_hung_is_closed_when_its_call_returns() -> None:
    """What it holds, such as a session on a server with few of them, was held for ever."""
    let_go, closed = threading.Event(), threading.Event()

    class Slow(TicTacToe):
        def reset(self, seed: int) -> None:  # type: ignore[override]
            let_go.wait()

        def close(self) -> None:
            closed.set()

    calls = EnvCalls("slow", 0, Hooks(), True, 0.05)
    await calls.make(Slow, {})
    with pytest.raises(EnvCallFailed, match=r"has not returned in time .*0\.05"):
        await calls.reset()
    await calls.close()
    assert not closed.is_set()

    let_go.set()

    assert await asyncio.to_thread(closed.wait, 10)
