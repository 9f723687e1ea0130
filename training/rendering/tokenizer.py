"""A chat model's tokenizer without transformers, which would load torch: tokenizer.json and the chat template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class ChatTokenizer:
    """What a renderer needs of a tokenizer, under the names that transformers gives it.

    Equal to transformers' tokenizer for folders that its fast tokenizers wrote. A decoded answer keeps its spaces as
    they are: `clean_up_tokenization_spaces` of old models is not applied.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        settings = _settings(folder)
        self.name_or_path = str(folder)
        self.chat_template = _chat_template(folder, settings)
        self._tokens = {name: _text(settings[name]) for name in NAMED_TOKENS if settings.get(name)}
        self._backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._backend.no_padding()
        self._backend.no_truncation()
        self.eos_token_id = self._id("eos_token")
        self.pad_token_id = self._id("pad_token")

    @staticmethod
    def can_load(folder: Path) -> bool:
        return (folder / "tokenizer.json").is_file()

    @property
    def added_tokens_decoder(self) -> dict[int, Any]:
        """Added tokens by id; each has `content`, `special` and `normalized`."""
        return dict(self._backend.get_added_tokens_decoder())

    @property
    def normalizes(self) -> bool:
        return self._backend.normalizer is not None

    def encode(self, text: str, add_special_tokens: bool = True, split_special_tokens: bool = False) -> list[int]:
        """Token ids. `split_special_tokens`: special tokens in `text` are encoded as the characters they are."""
        self._backend.encode_special_tokens = split_special_tokens
        return list(self._backend.encode(text, add_special_tokens=add_special_tokens).ids)

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        return str(self._backend.decode(list(token_ids), skip_special_tokens=skip_special_tokens))

    def apply_chat_template(
        self,
        messages: Sequence[Any],
        tools: Sequence[Any] | None = None,
        tokenize: bool = False,
        add_generation_prompt: bool = False,
    ) -> str:
        """The chat as text. Raises jinja2.TemplateError where the template does."""
        if tokenize or self.chat_template is None:
            raise ValueError("renders a chat template to text only, and needs one")
        return str(
            _compiled(self.chat_template).render(
                messages=messages,
                tools=tools,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._tokens,
            )
        )

    def _id(self, name: str) -> int | None:
        token = self._tokens.get(name)
        return None if token is None else self._backend.token_to_id(token)


def _settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json over special_tokens_map.json, where they exist."""
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            found |= json.loads((folder / name).read_text(encoding="utf-8"))
    return found


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):  # several by name
        template = next((entry["template"] for entry in template if entry["name"] == "default"), None)
    return template


def _text(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)


@lru_cache(maxsize=16)
def _compiled(template: str) -> Any:
    """As transformers compiles it (utils/chat_template_utils.py): templates rely on these settings and names."""
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}...{% endgeneration %}` marks answers for loss masks; here it is only its content."""

        tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)  # jinja2's own would escape HTML

    def strftime_now(form: str) -> str:
        return datetime.now().strftime(form)  # noqa: DTZ005 - the local date, as in transformers

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment.from_string(template)
