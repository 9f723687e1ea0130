"""Chat messages to token ids, and what a sampled answer adds to them. The one place that knows a chat template.

Tokens in, tokens out: an answer is carried on as the ids that were sampled, never decoded and encoded again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from configs.base import UserError

Message = Mapping[str, Any]


class TemplateError(UserError):
    """The chat template cannot be used for turns that only grow."""


class ChatRenderer:
    """Renders with the tokenizer's own chat template.

    `prompt(messages)` is a whole prompt; `continuation(answer, messages)` the ids that follow a sampled answer when the
    history only grows: the rest of the assistant's turn, the new messages and the next generation prompt.
    """

    def __init__(self, tokenizer: Any, cache: int = 65536) -> None:
        if tokenizer.chat_template is None:
            raise TemplateError(f"{tokenizer.name_or_path} has no chat template: give the tokenizer one")
        if tokenizer.eos_token_id is None:
            raise TemplateError(f"{tokenizer.name_or_path} has no end-of-turn token (eos_token)")
        self.tokenizer = tokenizer
        self.end_id: int = tokenizer.eos_token_id
        self._cached_prompt = lru_cache(maxsize=cache)(self._render)
        self._cached_tail = lru_cache(maxsize=cache)(self._render_tail)

    @classmethod
    def load(cls, folder: str) -> ChatRenderer:
        from transformers import AutoTokenizer

        return cls(AutoTokenizer.from_pretrained(folder))

    def prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of all messages plus the generation prompt."""
        return self._cached_prompt(_key(messages))

    def continuation(self, answer: Sequence[int], messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids that come after `answer` (sampled ids) when `messages` follow it.

        An answer that was cut before its end-of-turn token gets the token here, outside of what the policy chose.
        """
        tail = self._cached_tail(_key(messages))
        return tail if answer and answer[-1] == self.end_id else (self.end_id, *tail)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The answer's text without special tokens."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def _text(self, messages: Sequence[Message], generate: bool) -> str:
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate))

    def _render(self, key: tuple[tuple[str, str], ...]) -> tuple[int, ...]:
        text = self._text([{"role": role, "content": content} for role, content in key], generate=True)
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def _render_tail(self, key: tuple[tuple[str, str], ...]) -> tuple[int, ...]:
        start: list[Message] = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
        before = self._text(start, generate=False)
        after = self._text([*start, *({"role": r, "content": c} for r, c in key)], generate=True)
        end = self.tokenizer.decode([self.end_id])
        cut = before.rfind(end)
        if cut < 0 or not after.startswith(before[: cut + len(end)]):
            raise TemplateError(
                "the chat template rewrites earlier turns or does not end an answer with "
                f"{end!r}: use history: none, or a template whose turns only grow"
            )
        return tuple(self.tokenizer.encode(after[cut + len(end) :], add_special_tokens=False))


def _key(messages: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    return tuple((str(message["role"]), str(message["content"])) for message in messages)
