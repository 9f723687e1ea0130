"""What every question to a policy that acts says beside its observation: who asks whom, and until when."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import Request

from configs.policies import BasePolicy, PolicyConfig, ProviderPolicy
from configs.serving import ServeConfig
from deployments.errors import PolicyError
from deployments.protocol.act import ADDRESS_SESSION
from deployments.transports.http.requests import check_values, parse, read_body

INLINE_BYTES = 32 * 1024  # parsing these takes less than a thread costs
LONGEST_NAME = 200

Json = dict[str, Any]


async def json_object(
    request: Request,
    config: ServeConfig,
    limit_s: float,
    may_be_empty: bool = False,
    parser: Callable[[bytes], Json] = parse,
) -> Json:
    """The body as a JSON object, parsed in a thread where it is large. orjson takes at most 1024 levels of nesting.

    Raises PolicyError: "too_large", "invalid_request", "cancelled", and "deadline_exceeded" for a client that has not
    sent its body within `limit_s`.
    """
    try:
        async with asyncio.timeout(limit_s):
            body = await read_body(request, config.max_body_bytes)
    except TimeoutError as error:
        raise PolicyError("deadline_exceeded", f"the body did not arrive within {limit_s:g} s") from error
    return {} if may_be_empty and not body else await parsed(body, config.max_json_values, parser)


async def parsed(body: bytes, most_values: int, parser: Callable[[bytes], Json] = parse) -> Json:
    """Raises PolicyError("too_large" | "invalid_request")."""
    check_values(body, most_values)
    return parser(body) if len(body) <= INLINE_BYTES else await asyncio.to_thread(parser, body)


def policy_name(request: Request, named: str | None) -> str | None:
    """The policy that a request names: in the path (/policies/NAME/...), as `?policy=`, or in the body (`named`)."""
    return request.path_params.get("name") or request.query_params.get("policy") or named


def chosen(policies: Sequence[BasePolicy], name: str | None, fits: Callable[[BasePolicy], bool]) -> BasePolicy:
    """The policy of that name; where none has it, the only one that can answer. Raises PolicyError("not_found")."""
    fitting = [policy for policy in policies if fits(policy)]
    named = [policy for policy in policies if policy.name == name]
    found = named or fitting
    if len(found) == 1 and found[0] in fitting:
        return found[0]
    known = ", ".join(policy.name for policy in fitting) or "none"
    problem = f"policy {name!r} does not answer this route" if named else f"no policy {name!r}"
    raise PolicyError(
        "not_found", f"{'name a policy' if name is None else problem}; this route is answered by: {known}"
    )


def acts(policy: BasePolicy) -> bool:
    """Whether it answers a robot."""
    return policy.acts


def plays(policy: BasePolicy) -> bool:
    """Whether it answers a MineRL player."""
    return policy.plays


def speaks(policy: BasePolicy) -> bool:
    """Whether it answers the OpenAI API."""
    return isinstance(policy, PolicyConfig)


def chats(policy: BasePolicy) -> bool:
    """Whether it answers a conversation: a language policy, or a model behind an API."""
    return isinstance(policy, PolicyConfig | ProviderPolicy)


def named_by_model(policies: Sequence[BasePolicy], name: str | None) -> str | None:
    """The name of the policy that a conversation asks: a model behind an API also goes by the name that its provider
    has for it."""
    if any(policy.name == name for policy in policies):
        return name
    return next((p.name for p in policies if isinstance(p, ProviderPolicy) and p.model == name), name)


def longest_s(policies: Sequence[BasePolicy]) -> float:
    """Seconds that the most patient policy lets a request take."""
    return max(policy.request_deadline_s for policy in policies)


def session_id(request: Request, named: str | None) -> str:
    """Whose history this is: the header `x-session-id`, else `session_id` in the body (`named`), else the client's
    address, which HAProxy and TLS terminators give as `X-Forwarded-For`.

    Not the connection: many clients open one for each request, and behind a proxy the connections are the proxy's. So
    clients on one machine that name no session share one, but no answer is made from another request's observation.
    Where no address is known, a request belongs to none ("").
    """
    given = request.headers.get("x-session-id") or named
    if given:
        if len(given) > LONGEST_NAME:
            raise PolicyError("invalid_request", f"session_id: at most {LONGEST_NAME} characters, not {len(given)}")
        return given
    address = request.headers.get("x-forwarded-for", "").partition(",")[0].strip()
    return f"{ADDRESS_SESSION}{address[:LONGEST_NAME]}" if address else ""


def time_limit_s(request: Request, most_s: float) -> float:
    """Seconds that an answer may take: the header `x-timeout-s`, but at most the policy's own deadline `most_s`."""
    text = request.headers.get("x-timeout-s")
    if text is None:
        return most_s
    try:
        asked_s = float(text)
    except ValueError:
        asked_s = math.nan
    if not asked_s > 0:
        raise PolicyError("invalid_request", f"x-timeout-s: must be a number of seconds above 0; got {text[:60]!r}")
    return min(asked_s, most_s)
