"""Text in, text out around a token engine: the replica's side of plain completions and chats."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from deployments.protocol.act import ChatTurn
from deployments.protocol.completion import Completion, CompletionRequest
from deployments.protocol.generate import GenerateFailure, GenerateRequest, GenerateResult

ENCODED_INLINE = 4096  # characters; encoding these takes less than a millisecond, a thread costs about as much


class TextCompletions:
    """Encodes prompts. A long one is encoded in a thread, so that the replica's other requests go on, and a hopeless
    one is refused by its length before it is encoded at all."""

    def __init__(
        self, tokenizer: Any, max_model_len: int, conversation: Callable[[Sequence[ChatTurn]], Awaitable[list[int]]]
    ) -> None:
        """`conversation`: the engine's."""
        self._tokenizer = tokenizer
        self._conversation = conversation
        # Fast tokenizers must not be used by two threads at once («Already borrowed»): the thread has its own.
        self._tokenizer_of_thread = copy.deepcopy(tokenizer)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode")
        self._max_characters = max_model_len * max(map(len, tokenizer.get_vocab()))
        self._max_model_len = max_model_len

    async def tokens_of(self, request: CompletionRequest) -> GenerateRequest | GenerateFailure:
        """The request as token ids [T]; a failure of kind `too_large` for text that cannot fit into the model. Raises
        PolicyError for a conversation that the model cannot take."""
        characters = _characters(request.prompt)
        if characters > self._max_characters:
            message = (
                f"a prompt of {characters} characters cannot fit into max_model_len {self._max_model_len} tokens: "
                "shorten it"
            )
            return GenerateFailure(request.request_id, "too_large", message)
        match request.prompt:
            case str():
                prompt = await self._encode(request.prompt)
            case list():
                prompt = request.prompt
            case turns:
                prompt = await self._conversation(turns)
        sampling = replace(request.sampling, text=True)
        room = self._max_model_len - len(prompt)
        if request.as_fits and 0 < room < sampling.max_tokens:
            sampling = replace(sampling, max_tokens=room)
        return GenerateRequest(
            request.request_id,
            prompt,
            sampling,
            min_weight_version=request.min_weight_version,
            deadline_s=request.deadline_s,
            deadline_unix_s=request.deadline_unix_s,
        )

    async def _encode(self, text: str) -> list[int]:
        if len(text) <= ENCODED_INLINE:
            return list(self._tokenizer.encode(text))
        loop = asyncio.get_running_loop()
        return list(await loop.run_in_executor(self._thread, self._tokenizer_of_thread.encode, text))


def completion_of(request: GenerateRequest, result: GenerateResult) -> Completion:
    return Completion(
        request_id=request.request_id,
        text=result.text,
        finish_reason=result.finish_reason,
        prompt_tokens=len(request.token_ids),
        completion_tokens=len(result.token_ids),
        weight_version=result.weight_version,
    )


def _characters(prompt: str | list[int] | tuple[ChatTurn, ...]) -> int:
    """Characters that are to be encoded."""
    match prompt:
        case str():
            return len(prompt)
        case list():
            return 0
    return sum(len(turn.text) for turn in prompt)
