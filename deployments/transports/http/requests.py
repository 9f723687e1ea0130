"""HTTP bodies at the border: read within a bound, and typed before anything of them reaches an engine.

The engine decodes sampling parameters in a thread that one wrong type ends, for all users. So every field that vLLM
copies into its SamplingParams stands here with its strict type ("1" is no number, true is no integer, null only where
vLLM takes it); what is not named here does not reach the sampler, and is left to vLLM's own validation.
"""

from __future__ import annotations

import json
import reprlib
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect

from deployments.errors import PolicyError
from deployments.protocol.generate import SEED_BOUND

Count = Annotated[int, Field(ge=0, lt=2**31)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=-SEED_BOUND, lt=SEED_BOUND)]
Temperature = Annotated[float, Field(ge=0, le=2)]
Share = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]

DEFAULT_MAX_TOKENS = 16  # of a completion, as OpenAI's
SHOWN_CHARACTERS = 60
LONGEST_EXPLAINED = 256 * 1024  # bytes of broken JSON that are parsed once more, ten times as slowly
shortened = reprlib.Repr()  # a value may be megabytes
shortened.maxstring = shortened.maxother = SHOWN_CHARACTERS


class SampledBody(BaseModel):
    """The sampling fields of all forwarded routes. Fields that are null in vLLM, too, may be null."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    model: str | None = None
    user: str | None = None
    request_id: str | None = None
    session_id: str | None = None
    cache_salt: str | None = None
    stream: bool | None = False
    stream_interval: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    max_output_tokens: Count | None = None
    min_tokens: Count = 0
    n: Annotated[int, Field(ge=1, lt=2**31)] = 1
    best_of: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    use_beam_search: bool = False
    temperature: Temperature | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    min_p: Share | None = None
    seed: Seed | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    length_penalty: float = 1.0
    logit_bias: Annotated[dict[str, float], Field(max_length=1024)] | None = None
    logprobs: bool | Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    top_logprobs: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    prompt_logprobs: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    # The sizes are those of the GPU worker's own tables: it raises when one overflows, which ends the engine.
    logprob_token_ids: Annotated[list[TokenId], Field(max_length=128)] | None = None
    stop: str | Annotated[list[str], Field(max_length=64)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64)] | None = None  # the model's own join them
    allowed_token_ids: Annotated[list[TokenId], Field(max_length=1024)] | None = None
    bad_words: Annotated[list[str], Field(max_length=64)] = []
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    thinking_token_budget: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    priority: Annotated[int, Field(ge=-(2**31), lt=2**31)] = 0
    # Free-form data for engines that hand caches to each other, which ours do not.
    kv_transfer_params: None = None
    ec_transfer_params: None = None

    @property
    def sequences(self) -> int:
        """Answers that are generated for this request."""
        return max(self.n, self.best_of or 1)

    def tokens_asked(self) -> int | None:
        """The longest answer that the request allows, tokens; None where it names no bound."""
        named = (self.max_tokens, self.max_completion_tokens, self.max_output_tokens)
        return max((value for value in named if value is not None), default=None)

    def cap_field(self) -> str | None:
        """The field to set where the request names no bound; None where vLLM's own default is a small one."""
        return None


class CompletionBody(SampledBody):
    """`/v1/completions`."""

    prompt: str | list[str] | list[TokenId] | list[list[TokenId]] | None = None
    logprobs: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    echo: bool | None = False
    suffix: str | None = None
    add_special_tokens: bool = True

    @property
    def sequences(self) -> int:
        prompts = len(self.prompt) if isinstance(self.prompt, list) and not self.one_prompt else 1
        return max(self.n, self.best_of or 1) * max(1, prompts)

    @property
    def one_prompt(self) -> bool:
        """Whether it asks for the answer to one prompt, not to a list of them."""
        return isinstance(self.prompt, str) or (
            isinstance(self.prompt, list) and bool(self.prompt) and isinstance(self.prompt[0], int)
        )

    def tokens_asked(self) -> int | None:
        return DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens


class ChatBody(SampledBody):
    """`/v1/chat/completions`; vLLM's default is to fill the context."""

    logprobs: bool | None = False
    n: Annotated[int, Field(ge=1, lt=2**31)] | None = 1  # type: ignore[assignment]  # null in vLLM, here only

    @property
    def sequences(self) -> int:
        return max(self.n or 1, self.best_of or 1)

    def cap_field(self) -> str | None:
        return "max_completion_tokens"


class ChatBatchBody(ChatBody):
    """`/v1/chat/completions/batch`: several conversations in one request."""

    messages: list[Any] = []

    @property
    def sequences(self) -> int:
        return super().sequences * max(1, len(self.messages))


class ResponsesBody(SampledBody):
    """`/v1/responses`; vLLM's default is to fill the context."""

    def cap_field(self) -> str | None:
        return "max_output_tokens"


BODIES: dict[str, type[SampledBody]] = {
    "/v1/completions": CompletionBody,
    "/v1/chat/completions": ChatBody,
    "/v1/chat/completions/batch": ChatBatchBody,
    "/v1/responses": ResponsesBody,
}

BodyT = TypeVar("BodyT", bound=BaseModel)


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body. Raises PolicyError("too_large") as soon as more than `limit_bytes` have come, whatever the
    length that was declared, and "cancelled" when the client leaves meanwhile."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit_bytes:
        raise PolicyError("too_large", f"the body is over {limit_bytes} bytes")
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit_bytes:
                raise PolicyError("too_large", f"the body is over {limit_bytes} bytes")
            parts.append(part)
    except ClientDisconnect as error:
        raise PolicyError("cancelled", "the client left while it sent the body") from error
    return b"".join(parts)


def check_values(body: bytes, most: int) -> None:
    """Raises PolicyError("too_large") for JSON of more values than that, without parsing it."""
    if body.count(b",") > most:
        raise PolicyError(
            "too_large",
            f"the body holds over {most} values (max_json_values): send images as base64, not as nested lists",
        )


def parse(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. Python's NaN and Infinity are parsed, too, for `typed` to name their field."""
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        message = f"the body is not valid JSON: {error}"
        if len(body) > LONGEST_EXPLAINED:
            raise PolicyError("invalid_request", message) from error
        try:
            payload = json.loads(body)
        except (ValueError, RecursionError):
            raise PolicyError("invalid_request", message) from error
        if isinstance(payload, dict):
            typed(SampledBody, payload)
        raise PolicyError("invalid_request", message) from error
    if not isinstance(payload, dict):
        raise PolicyError("invalid_request", f"the body must be a JSON object, not {type(payload).__name__}")
    return payload


def typed(model: type[BodyT], payload: dict[str, Any]) -> BodyT:
    """Raises PolicyError("invalid_request") that names the first field with a wrong value."""
    try:
        return model.model_validate(payload)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
        field = str(errors[0]["loc"][0])
        same = dict.fromkeys(each["msg"] for each in errors if str(each["loc"][0]) == field)
        got = shortened.repr(payload.get(field))
        shown = got if len(got) <= SHOWN_CHARACTERS else f"{got[:SHOWN_CHARACTERS]}..."
        raise PolicyError("invalid_request", f"{field}: {' or '.join(same)}; got {shown}") from error


def within_bound(body: SampledBody, limit_tokens: int, context_tokens: int) -> dict[str, Any]:
    """Fields to set so that the request generates at most `limit_tokens` tokens in all its answers together. Raises
    PolicyError("too_large") where it asks for more.

    Where it names no bound, an answer gets at most half of `context_tokens` (prompt and answer of the policy together):
    vLLM refuses a prompt that does not fit beside the longest answer."""
    sequences, asked = body.sequences, body.tokens_asked()
    if sequences > limit_tokens or (asked or 0) * sequences > limit_tokens:
        times = f" x {sequences} answers" if sequences > 1 else ""
        tokens = "" if asked is None else f"{asked} tokens"
        raise PolicyError("too_large", f"{tokens}{times} asked for: the policy's max_new_tokens is {limit_tokens}")
    field = body.cap_field()
    if asked is not None or field is None:
        return {}
    return {field: min(limit_tokens // sequences, context_tokens // 2)}


def min_weight_version(request: Request) -> int:
    """The oldest weights that may answer, from the header `x-min-weight-version`; 0: any."""
    text = request.headers.get("x-min-weight-version", "0").strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise PolicyError("invalid_request", f"x-min-weight-version: must be an integer of at least 0; got {text!r}")
    return int(text)
