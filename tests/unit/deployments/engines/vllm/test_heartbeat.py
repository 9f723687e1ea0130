from __future__ import annotations

import asyncio

from deployments.engines.vllm.heartbeat import Heartbeat


async def test_a_question_without_an_answer_grows_old_and_an_answered_one_does_not() -> None:
    now, answers = [0.0], asyncio.Queue[bool]()
    heartbeat = Heartbeat(answers.get, clock=lambda: now[0])
    assert heartbeat.silent_s() == 0.0
    now[0] = 100.0
    assert heartbeat.silent_s() == 100.0
    answers.put_nowait(False)
    await asyncio.sleep(0)  # the question's task takes the answer
    await asyncio.sleep(0)
    assert heartbeat.silent_s() == 0.0


async def test_time_in_which_the_process_was_busy_with_an_update_is_excused() -> None:
    now, answers = [0.0], asyncio.Queue[bool]()
    heartbeat = Heartbeat(answers.get, clock=lambda: now[0])
    heartbeat.silent_s()
    now[0] = 100.0
    heartbeat.excuse()
    assert heartbeat.silent_s() == 0.0
