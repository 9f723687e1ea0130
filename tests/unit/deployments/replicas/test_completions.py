"""Text prompts: refused by length before they are encoded, and encoded beside the replica's loop."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from deployments.protocol.act import ChatTurn
from deployments.protocol.completion import CompletionRequest
from deployments.protocol.generate import GenerateFailure, GenerateRequest, GenerateResult, Sampling
from deployments.replicas.completions import ENCODED_INLINE, TextCompletions, completion_of


class Recorded(PreTrainedTokenizerFast):  # type: ignore[misc]
    """Knows which threads it encoded in; copies share the list."""

    threads: list[str]

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        self.threads.append(threading.current_thread().name)
        return super().encode(*args, **kwargs)

    def __deepcopy__(self, memo: Any) -> Recorded:
        copied = tokenizer()
        copied.threads = self.threads
        return copied


def tokenizer() -> Recorded:
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "play": 1, "X": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    made = Recorded(tokenizer_object=words, unk_token="[UNK]")
    made.threads = []
    return made


@pytest.fixture
def words() -> Recorded:
    return tokenizer()


async def rendered(turns: Sequence[ChatTurn]) -> list[int]:
    """Stands for the engine's `conversation`."""
    return [len(turn.text) for turn in turns]


async def tokens(
    words: Recorded, prompt: str | list[int] | tuple[ChatTurn, ...], max_model_len: int
) -> GenerateRequest | GenerateFailure:
    return await TextCompletions(words, max_model_len, rendered).tokens_of(
        CompletionRequest("r", prompt, min_weight_version=3, deadline_s=7.0, deadline_unix_s=9.0)
    )


async def test_a_prompt_that_cannot_fit_is_refused_before_it_is_encoded(words: Recorded) -> None:
    # The longest token has 5 characters ("[UNK]"): 4 tokens are at most 20 characters.
    refused = await tokens(words, "x" * 21, max_model_len=4)
    assert isinstance(refused, GenerateFailure)
    assert refused.kind == "too_large"
    assert words.threads == []
    assert isinstance(await tokens(words, "x" * 20, max_model_len=4), GenerateRequest)


async def test_a_long_prompt_is_encoded_in_a_thread_and_a_short_one_at_once(words: Recorded) -> None:
    await tokens(words, "play X", max_model_len=10_000)
    assert words.threads == ["MainThread"]
    long = await tokens(words, "play " * ENCODED_INLINE, max_model_len=10_000)
    assert isinstance(long, GenerateRequest)
    assert list(long.token_ids) == [1] * ENCODED_INLINE
    assert words.threads[1].startswith("encode")


async def test_version_and_deadlines_go_along_and_token_ids_stay_as_they_are(words: Recorded) -> None:
    request = await tokens(words, [2, 1], max_model_len=4)
    assert isinstance(request, GenerateRequest)
    assert request.token_ids == [2, 1]
    assert (request.min_weight_version, request.deadline_s, request.deadline_unix_s) == (3, 7.0, 9.0)
    assert request.sampling.text, "the engine is asked for text"


async def test_a_conversation_is_rendered_by_the_engine_and_refused_by_its_length_before(words: Recorded) -> None:
    turns = (ChatTurn("system", "play"), ChatTurn("user", "X" * 16))
    rendering = await tokens(words, turns, max_model_len=4)
    assert isinstance(rendering, GenerateRequest)
    assert rendering.token_ids == [4, 16]
    refused = await tokens(words, (*turns, ChatTurn("user", "X")), max_model_len=4)
    assert isinstance(refused, GenerateFailure)
    assert refused.kind == "too_large"


@pytest.mark.parametrize(("as_fits", "max_tokens"), [(True, 3), (False, 8)])
async def test_an_answer_without_a_bound_of_its_own_gets_what_the_prompt_leaves(
    words: Recorded, as_fits: bool, max_tokens: int
) -> None:
    request = CompletionRequest("r", [1, 2, 1], Sampling(max_tokens=8), as_fits=as_fits)
    tokens = await TextCompletions(words, 6, rendered).tokens_of(request)
    assert isinstance(tokens, GenerateRequest)
    assert tokens.sampling.max_tokens == max_tokens


def test_an_answer_is_counted() -> None:
    request, result = GenerateRequest("r", [1, 2, 1]), GenerateResult("r", [1, 2], [], 5, "stop", text="play X")
    answer = completion_of(request, result)
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == ("play X", 3, 2)
    assert (answer.weight_version, answer.finish_reason) == (5, "stop")
