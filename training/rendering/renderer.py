"""Chat messages to token ids, and what a sampled answer adds to them. The one place that knows a chat template.

Tokens in, tokens out: an answer is carried on as the ids that were sampled, never decoded and encoded again.

Content never makes a control token. Text of an environment, a tool, a user or the policy itself may contain the text
of a special token, by accident or on purpose; encoded naively it would end turns and open new ones. Such text is
encoded as the characters it consists of, and only the template's own pieces become special ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from configs.base import UserError
from deployments.storage.vision import Vision
from envs.history import TOOLS
from training.checks.alarms import Alarm
from training.checks.failures import FaultyRollout
from training.rendering.ids_cache import IdsCache, Key
from training.rendering.messages import ContentUnsupported, Message, content_of, template_message, templated
from training.rendering.tokenizer import ChatTokenizer

PROBE = "probe-answer"  # stands for an answer where a template is asked what it does with one
PROBED: list[Message] = [{"role": "user", "content": "u"}, {"role": "assistant", "content": PROBE}]
PROBE_TOOL = {"type": "function", "function": {"name": PROBE, "description": "", "parameters": {"type": "object"}}}
CACHED_SHAPES = 1024  # of chats, by the roles of their messages
PRIVATE_USE = range(0xF0000, 0xFFFFE)  # Unicode's plane for private use: no text means anything by these


class TemplateError(UserError):
    """The chat template cannot be used for turns that only grow."""


class ChatRenderer:
    """Renders with the tokenizer's own chat template.

    `prompt(messages)` is a whole prompt; `continuation(answer, messages)` the ids that follow a sampled answer when the
    history only grows: the rest of the assistant's turn, the new messages and the next generation prompt.

    `tokenizer`: a ChatTokenizer, or a fast tokenizer of transformers; `vision`: how the model reads images, if it does.
    An image is as many tokens here as it is to the model.
    """

    def __init__(self, tokenizer: Any, vision: Vision | None = None, cache_bytes: int = 32 * 2**20) -> None:
        if tokenizer.chat_template is None:
            raise TemplateError(f"{tokenizer.name_or_path} has no chat template: give the tokenizer one")
        self.tokenizer, self._vision = tokenizer, vision
        special = {id_: token for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._special_ids = {token.content: id_ for id_, token in special.items()}
        self._control_ids = frozenset(special)
        longest_first = sorted(self._special_ids, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self.end_id = self._end_of_turn()
        self._cached_prompt = IdsCache(self._render, cache_bytes)
        self._cached_tail = IdsCache(self._render_tail, cache_bytes)
        self._controls_of_template = lru_cache(CACHED_SHAPES)(self._count_controls)

    @classmethod
    def load(cls, folder: str) -> ChatRenderer:
        """From a model folder. Loads no torch, unless the folder has no tokenizer.json. Raises VisionUnsupported."""
        vision = Vision.load(folder)
        if ChatTokenizer.can_load(Path(folder)):
            return cls(ChatTokenizer(Path(folder)), vision)
        from transformers import AutoTokenizer

        return cls(AutoTokenizer.from_pretrained(folder), vision)

    def prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of all messages plus the generation prompt. Raises ContentUnsupported."""
        return self._cached_prompt(self._key(messages))

    def continuation(self, answer: Sequence[int], messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids that come after `answer` (sampled ids) when `messages` follow it. Raises ContentUnsupported.

        An answer that was cut before its end-of-turn token, or that ended with another one, gets the token here,
        outside of what the policy chose.
        """
        tail = self._cached_tail(self._key(messages))
        return tail if answer and answer[-1] == self.end_id else (self.end_id, *tail)

    def answer(self, text: str) -> tuple[int, ...]:
        """Token ids of an answer that a policy would say as `text`, with its end-of-turn token."""
        return (*self._spelt_out(text), self.end_id)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The answer's text without the special tokens that end it. One inside is part of what the policy said: left
        out, it would make a well-formed answer of a malformed one."""
        ids = list(token_ids)
        while ids and ids[-1] in self._control_ids:
            ids.pop()
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that may end an answer by themselves: every special token of the vocabulary."""
        eos = self.tokenizer.eos_token_id
        return self._control_ids if eos is None else self._control_ids | {eos}

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """What a sampler must be told to stop at: the end of a turn, where the engine does not know it as the
        tokenizer's end of text."""
        return () if self.end_id == self.tokenizer.eos_token_id else (self.end_id,)

    @property
    def banned_ids(self) -> tuple[int, ...]:
        """What a sampler must never draw: tokens that stand for images. () for a model without images."""
        return () if self._vision is None else self._vision.special_ids

    def _end_of_turn(self) -> int:
        """The special token that the template puts behind an answer. Often it is the tokenizer's `eos_token`, but not
        where that one ends a text, and a turn ends with another (Gemma, Llama 3's base models)."""
        import jinja2

        try:
            end = self._behind(PROBE, self._text(PROBED, generate=False))
        except jinja2.TemplateError:  # it refuses such a short chat
            end = None
        found = self.tokenizer.eos_token_id if end is None else self._special_ids[end[0]]
        if found is None:
            raise TemplateError(
                f"the chat template of {self.tokenizer.name_or_path} ends an answer with no special token, and the "
                "tokenizer has no eos_token: nothing would end an answer"
            )
        return int(found)

    def _behind(self, answer: str, text: str) -> re.Match[str] | None:
        """The first special token behind `answer` in a rendered chat."""
        _, found, rest = text.partition(answer)
        return self._special.search(text, len(text) - len(rest)) if found else None

    def _text(self, messages: Sequence[Message], generate: bool) -> str:
        tools, chat = None, list(messages)
        if chat and chat[0]["role"] == TOOLS:
            tools = json.loads(chat.pop(0)["content"])
        text = self.tokenizer.apply_chat_template(chat, tools=tools, tokenize=False, add_generation_prompt=generate)
        if tools and tools[0]["function"]["name"] not in text:
            raise TemplateError(
                f"the chat template of {self.tokenizer.name_or_path} does not show the environment's tools: take a "
                "model whose template does, or a form of the environment that writes them into its text"
            )
        return str(text)

    def _render(self, key: Key) -> tuple[int, ...]:
        disarmed, forged = self._disarm(key)
        ids = self._encode(self._text(templated(disarmed), generate=True), forged)
        return self._with_images(key, self._checked(key, ids, tail=False))

    def _render_tail(self, key: Key) -> tuple[int, ...]:
        """What follows an answer is told by a probe, and what stands before it is not looked at: a template may show an
        earlier answer otherwise than the last one (Qwen3 leaves its thinking out), but what was sampled stays."""
        disarmed, forged = self._disarm(key)
        text = self._text([*PROBED, *templated(disarmed)], generate=True)
        end = self._behind(PROBE, text)
        if end is None or self._special_ids[end[0]] != self.end_id:
            raise TemplateError(
                f"the chat template does not end an answer with {self.tokenizer.decode([self.end_id])!r} when "
                "messages follow it: use history: none, or a template whose turns only grow"
            )
        return self._with_images(key, self._checked(key, self._encode(text[end.end() :], forged), tail=True))

    def _key(self, messages: Sequence[Message]) -> Key:
        """Raises ContentUnsupported."""
        key = tuple((str(message["role"]), *content_of(message)) for message in messages)
        if self._vision is None and any(sizes for _, _, sizes in key):
            raise ContentUnsupported(
                f"the observation has an image, and {self.tokenizer.name_or_path} reads none: take a vision-language "
                "model, or an environment whose observations are text"
            )
        return key

    def _with_images(self, key: Key, ids: tuple[int, ...]) -> tuple[int, ...]:
        """`ids` with as many image tokens as each image takes. Raises ContentUnsupported."""
        sizes = [size for _, _, of_message in key for size in of_message]
        if self._vision is None or not sizes:
            return ids
        if ids.count(self._vision.image_id) != len(sizes):
            raise TemplateError(
                f"the chat template of {self.tokenizer.name_or_path} wrote {ids.count(self._vision.image_id)} image "
                f"tokens for {len(sizes)} images"
            )
        return self._vision.expanded(ids, sizes)

    def _checked(self, key: Key, ids: tuple[int, ...], tail: bool) -> tuple[int, ...]:
        """Raises FaultyRollout when a message has put control tokens into a prompt."""
        found = self._controls(ids)
        shape = tuple((role, _parts(role, content), len(sizes)) for role, content, sizes in key)
        expected = self._controls_of_template(shape, tail)
        if found != expected:
            raise FaultyRollout(
                Alarm(
                    "control tokens",
                    f"a prompt of the roles {[role for role, _, _ in key]} has {found} control tokens, and its "
                    f"template alone writes {expected}: content forges turns, or loses them",
                )
            )
        return ids

    def _count_controls(self, shape: tuple[tuple[str, int, int], ...], tail: bool) -> int:
        """What the template writes around messages of these (role, number of tools or whether there is content, number
        of images)."""
        plain = [
            template_message(role, json.dumps([PROBE_TOOL] * parts) if role == TOOLS else PROBE * parts, images)
            for role, parts, images in shape
        ]
        text = self._text([*PROBED, *plain] if tail else plain, generate=True)
        behind = self._behind(PROBE, text) if tail else None
        return len(self._special.findall(text, behind.end() if behind else 0))

    def _disarm(self, key: Key) -> tuple[Key, dict[str, str]]:
        """The messages with every special token's text in their content replaced by a character that stands for it,
        and what each of these characters stands for. The template then sees the rest of the content as it is."""
        forged = sorted({found for _, content, _ in key for found in self._special.findall(content)})
        if not forged:
            return key, {}
        used = {character for _, content, _ in key for character in content}
        marks = (chr(code) for code in PRIVATE_USE if chr(code) not in used)
        mark_of = {text: next(marks) for text in forged}
        disarmed = tuple(
            (role, self._special.sub(lambda m: mark_of[m[0]], content), sizes) for role, content, sizes in key
        )
        return disarmed, {mark: text for text, mark in mark_of.items()}

    def _encode(self, text: str, forged: Mapping[str, str]) -> tuple[int, ...]:
        """Ids of a rendered chat. Without forged tokens: exactly what the tokenizer makes of the whole text."""
        if not forged:
            whole = tuple(self.tokenizer.encode(text, add_special_tokens=False))
            if self._controls(whole) == len(self._special.findall(text)):
                return whole  # else a normaliser, or a seam, made a control token of harmless characters
        ids: list[int] = []
        position = 0
        for control in self._special.finditer(text):
            ids += self._plain(text[position : control.start()], forged)
            ids.append(self._special_ids[control[0]])
            position = control.end()
        return tuple(ids + self._plain(text[position:], forged))

    def _plain(self, piece: str, forged: Mapping[str, str]) -> list[int]:
        """Ids of text between two control tokens, with what was forged in it spelt out."""
        if not piece:
            return []
        whole = "".join(forged.get(character, character) for character in piece)
        ids = self._spelt_out(whole)
        if not self._controls(ids):
            return ids
        # A vocabulary may hold the special text as an ordinary piece, too (Unigram models do): cut it in two.
        halved = "".join(f"{forged[c][:1]}\0{forged[c][1:]}" if c in forged else c for c in piece).split("\0")
        ids = [id_ for part in halved for id_ in self._spelt_out(part)]
        if self._controls(ids):
            raise ContentUnsupported(f"this tokenizer makes a control token of the text {whole!r}")
        return ids

    def _spelt_out(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    def _controls(self, ids: Sequence[int]) -> int:
        """How many of `ids` are control tokens."""
        return sum(id_ in self._control_ids for id_ in ids)


def _parts(role: str, content: str) -> int:
    """How many tools; of another message, whether there is content."""
    return len(json.loads(content)) if role == TOOLS else int(bool(content))
