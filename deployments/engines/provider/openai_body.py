"""What a client of /v1/chat/completions may ask of a model behind an API, and the call of litellm that it becomes.

Every field is named here: `acompletion` also takes the address of the API, its key and files to read, and none of these
may come from outside.
"""

from __future__ import annotations

import base64
import io
from typing import Annotated, Any, Literal

import orjson
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from deployments.engines.provider.calls import Prepared
from deployments.engines.provider.messages import image_tokens, text_tokens
from deployments.errors import PolicyError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
OURS = {
    "model",
    "stream",
    "stream_options",
    "max_completion_tokens",
    "messages",
}  # fields that are not sent as they are
DEFAULT_MAX_TOKENS = 1024  # where nobody has set a bound


class _Given(BaseModel):
    """Part of a message. What an earlier answer held besides, and comes back in a history, is left out."""

    model_config = ConfigDict(strict=True, extra="ignore")


class Text(_Given):
    type: Literal["text"]
    text: str


class ImageUrl(_Given):
    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(_Given):
    type: Literal["image_url"]
    image_url: ImageUrl


class Function(_Given):
    name: str
    arguments: str


class ToolCall(_Given):
    id: str
    type: Literal["function"] = "function"
    function: Function


class ChatMessage(_Given):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Annotated[Text | ImagePart, Field(discriminator="type")]] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    @property
    def texts(self) -> list[str]:
        parts = self.content if isinstance(self.content, list) else []
        plain = [self.content] if isinstance(self.content, str) else []
        called = [call.function.name + call.function.arguments for call in self.tool_calls or ()]
        return [*plain, *(part.text for part in parts if isinstance(part, Text)), *called]

    @property
    def image_uris(self) -> list[str]:
        parts = self.content if isinstance(self.content, list) else []
        return [part.image_url.url for part in parts if isinstance(part, ImagePart)]


class StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    include_usage: bool | None = None


class ChatAsked(BaseModel):
    """The body of a request. Fields that are null count as not given."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    messages: list[ChatMessage] = Field(min_length=1)
    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    user: str | None = None
    tools: list[dict[str, JsonValue]] | None = None
    tool_choice: str | dict[str, JsonValue] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, JsonValue] | None = None
    reasoning_effort: str | None = None

    @classmethod
    def of(cls, body: bytes) -> ChatAsked:
        """`body`: a JSON object. Raises PolicyError("invalid_request") that names the first field that is wrong."""
        try:
            payload = orjson.loads(body)
            return cls.model_validate({name: value for name, value in payload.items() if value is not None})
        except (orjson.JSONDecodeError, AttributeError) as error:
            raise PolicyError("invalid_request", "the body must be a JSON object") from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            field = ".".join(str(place)[:60] for place in first["loc"])
            if first["type"] == "extra_forbidden":
                raise PolicyError("invalid_request", f"{field}: a model behind an API does not take this") from None
            raise PolicyError("invalid_request", f"{field}: {first['msg'][:300]}") from None

    @property
    def wants_usage(self) -> bool:
        """Whether the last event of a stream says what was used."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def prepared(self) -> Prepared:
        """The call. Looks at every image: this takes a thread's time. Raises PolicyError("invalid_request")."""
        most = self.max_completion_tokens or self.max_tokens or DEFAULT_MAX_TOKENS
        fields: dict[str, Any] = self.model_dump(exclude_none=True, exclude=OURS)
        fields["messages"] = [message.model_dump(exclude_none=True) for message in self.messages]
        fields["max_tokens"] = most  # litellm knows which of the two names a model takes
        if self.stream:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}  # the limits count what was used
        prompt = sum(map(_prompt_tokens, self.messages)) + text_tokens(orjson.dumps(self.tools or []).decode())
        return Prepared(fields, prompt + most * (self.n or 1))


def _prompt_tokens(message: ChatMessage) -> int:
    return sum(map(text_tokens, message.texts)) + sum(map(_uri_tokens, message.image_uris))


def _uri_tokens(uri: str) -> int:
    head, _, data = uri.partition(",")
    if not (head.startswith("data:image/") and head.endswith(";base64")):
        raise PolicyError(
            "invalid_request", "images must be data URIs (data:image/png;base64,...): this server fetches nothing"
        )
    try:
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=FORMATS) as image:
            return image_tokens(image.height, image.width)
    except Exception as error:  # Pillow's decoders raise whatever they stumble over in a corrupt file
        raise PolicyError("invalid_request", "an image cannot be read: send JPEG, PNG, WebP or GIF") from error
