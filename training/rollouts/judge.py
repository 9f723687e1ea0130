"""A model as a judge of episodes: one question, one number between 0 and 1. asyncio and HTTP, no Ray."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

import httpx

from configs.rewards import CONVERSATION, JudgeConfig
from deployments.client.http import failure_of
from deployments.errors import RETRY_AFTER_S, PolicyError
from training.types import Episode, Turn

Judge = Callable[[Episode], Awaitable[float]]  # a score between 0 and 1; raises JudgeFailed
Message = dict[str, str]
Reason = Literal["unparsable", "unreachable", "refused", "deadline"]


class JudgeFailed(Exception):
    """There is no verdict; it is never a score. `retryable`: the judge may answer later."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"the judge gave no verdict ({reason}): {message}")
        self.reason = reason
        self.retryable = reason != "refused"


class ChatJudge:
    """Asks a server with OpenAI's chat route. Consumes: episodes. Waits for: a place among the open questions, then
    the server. Unblocked by: its answer, or `deadline_s`.

    Raises JudgeFailed. A verdict that cannot be read is asked for again, with the unreadable one shown to the judge; a
    server that is overloaded or away is asked again after the pause that it names. Other refusals (a key, a model, a
    question that it does not take) are not repeated.
    """

    def __init__(self, config: JudgeConfig, key: str | None = None, pause_s: float = RETRY_AFTER_S) -> None:
        """`pause_s`: before the next try, where the server names none."""
        self._config, self._pause_s = config, pause_s
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._room = asyncio.Semaphore(config.max_concurrent)
        self._known: OrderedDict[bytes, float] = OrderedDict()  # digest of a question -> its score, newest last

    async def __call__(self, episode: Episode) -> float:
        question = self._config.prompt.replace(CONVERSATION, as_text(episode.turns))
        digest = hashlib.blake2b(question.encode(), digest_size=16).digest()
        if digest in self._known:
            self._known.move_to_end(digest)
            return self._known[digest]
        limit_s = self._config.deadline_s
        deadline = asyncio.timeout(limit_s)
        try:
            async with deadline, self._room:
                score = await self._asked(question)
        except TimeoutError:
            raise JudgeFailed("deadline", f"{self._config.url} took more than {limit_s:g} s") from None
        self._known[digest] = score
        while len(self._known) > self._config.cache_size:
            self._known.popitem(last=False)
        return score

    async def _asked(self, question: str) -> float:
        messages = asked = [{"role": "user", "content": question}]
        failed = JudgeFailed("unparsable", "it was never asked")
        async with httpx.AsyncClient(timeout=None, headers=self._headers) as http:  # deadline_s bounds it
            for attempt in range(self._config.tries):
                try:
                    answer = await self._answer(http, messages)
                except PolicyError as error:
                    if not error.retryable:
                        raise JudgeFailed("refused", str(error)) from error
                    failed = JudgeFailed("unreachable", str(error))
                    if attempt + 1 < self._config.tries:
                        await asyncio.sleep(self._pause_s if error.retry_after_s is None else error.retry_after_s)
                    continue
                verdict = score_of(answer, self._config)
                if verdict is not None:
                    return verdict
                failed = JudgeFailed("unparsable", f"{answer[-200:]!r} has no verdict, in {attempt + 1} tries")
                messages = [*asked, {"role": "assistant", "content": answer}, {"role": "user", "content": AGAIN}]
        raise failed

    async def _answer(self, http: httpx.AsyncClient, messages: Sequence[Message]) -> str:
        """The judge's text. Raises PolicyError."""
        config = self._config
        body: dict[str, Any] = {
            "model": config.model,
            "messages": list(messages),
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
        }
        try:
            answer = await http.post(f"{config.url.rstrip('/')}/chat/completions", json=body)
        except httpx.TransportError as error:
            raise PolicyError("unavailable", f"{config.url} cannot be reached: {error}") from error
        if not answer.is_success:
            raise failure_of(answer, "")
        try:
            return str(answer.json()["choices"][0]["message"]["content"] or "")
        except (ValueError, LookupError, TypeError) as error:
            raise PolicyError("engine_failed", f"{config.url} did not answer in OpenAI's format") from error


AGAIN = "This holds no verdict in the form that was asked for. Answer once more, in that form."


def as_text(turns: Sequence[Turn]) -> str:
    """What the policy was shown and what it answered, in turn; without its system prompt."""
    return "\n\n".join(f"Environment: {turn.prompt_text}\n\nAssistant: {turn.text}" for turn in turns)


def score_of(answer: str, config: JudgeConfig) -> float | None:
    """The verdict in an answer, scaled from `low`..`high` to 0..1; None where there is none, or one outside.

    >>> score_of("Legal, but slow. Score: 7", JudgeConfig(url="http://judge/v1", model="m"))
    0.7
    >>> score_of("Score: 11", JudgeConfig(url="http://judge/v1", model="m"))
    """
    *_, last = [None, *re.finditer(config.pattern, answer)]
    if last is None:
        return None
    try:
        verdict = float(last.group(1))
    except (TypeError, ValueError):
        return None
    return (verdict - config.low) / (config.high - config.low) if config.low <= verdict <= config.high else None
