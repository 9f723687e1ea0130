"""Text in, text out around a token engine: the replica's side of a plain `/v1/completions`."""

from __future__ import annotations

import asyncio
import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from deployments.protocol.completion import Completion, CompletionRequest
from deployments.protocol.generate import GenerateFailure, GenerateRequest, GenerateResult

ENCODED_INLINE = 4096  # characters; encoding these takes less than a millisecond, a thread costs about as much


class TextCompletions:
    """Encodes prompts and decodes answers. A long prompt is encoded in a thread, so that the replica's other requests
    go on, and a hopeless one is refused by its length before it is encoded at all."""

    def __init__(self, tokenizer: Any, max_model_len: int) -> None:
        self._tokenizer = tokenizer
        # Fast tokenizers must not be used by two threads at once («Already borrowed»): the thread has its own.
        self._tokenizer_of_thread = copy.deepcopy(tokenizer)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode")
        self._max_characters = max_model_len * max(map(len, tokenizer.get_vocab()))
        self._max_model_len = max_model_len

    async def tokens_of(self, request: CompletionRequest) -> GenerateRequest | GenerateFailure:
        """The request as token ids [T]; a failure of kind `too_large` for text that cannot fit into the model."""
        prompt = request.prompt
        if isinstance(prompt, str):
            if len(prompt) > self._max_characters:
                message = (
                    f"a prompt of {len(prompt)} characters cannot fit into max_model_len {self._max_model_len} tokens: "
                    "shorten it"
                )
                return GenerateFailure(request.request_id, "too_large", message)
            prompt = await self._encode(prompt)
        return GenerateRequest(
            request.request_id,
            prompt,
            request.sampling,
            min_weight_version=request.min_weight_version,
            deadline_s=request.deadline_s,
            deadline_unix_s=request.deadline_unix_s,
        )

    async def _encode(self, text: str) -> list[int]:
        if len(text) <= ENCODED_INLINE:
            return list(self._tokenizer.encode(text))
        loop = asyncio.get_running_loop()
        return list(await loop.run_in_executor(self._thread, self._tokenizer_of_thread.encode, text))

    def text_of(self, request: GenerateRequest, result: GenerateResult) -> Completion:
        return Completion(
            request_id=request.request_id,
            text=self._tokenizer.decode(result.token_ids, skip_special_tokens=True),
            finish_reason=result.finish_reason,
            prompt_tokens=len(request.token_ids),
            completion_tokens=len(result.token_ids),
            weight_version=result.weight_version,
        )
