"""`POST /act` and `POST /reset` for robots: one observation as JSON in, one action out."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
import orjson
from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from configs.policies import BasePolicy
from configs.serving import ServeConfig
from deployments.errors import PolicyError
from deployments.protocol.act import ActRequest, ActResult
from deployments.transports.http.answers import answer_headers, in_time, json_answer, timing_ms
from deployments.transports.http.asked import (
    json_object,
    longest_s,
    parsed,
    policy_name,
    session_id,
    time_limit_s,
)
from deployments.transports.http.nested import parsed_with_image
from deployments.transports.http.observation import ActBody, question
from deployments.transports.http.requests import typed
from deployments.transports.policies import ServedPolicies

Answer = Literal["list", "dict"]


class Acts(Protocol):
    """What these routes need of `deployments.acting.act.Acting`."""

    async def act(self, policy: str | None, request: ActRequest) -> ActResult: ...

    async def reset(self, policy: str | None, session_id: str) -> None: ...


class ResetBody(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    model: str | None = None
    session_id: str | None = None


async def act(acting: Acts, request: Request, served: ServedPolicies) -> Response:
    """The answer to one `POST /act`: a bare list of numbers, the action of the next step; what else there is to say
    stands in headers. With `?format=dict` (or by the policy's setting) a dict, with `test` a small one.

    The body may also be `{"encoded": JSON of the whole body as a string}`: the answer is then a JSON string that holds
    the action as json_numpy. Raises PolicyError.
    """
    config = served.config
    arrived, limit_s = time.time(), time_limit_s(request, longest_s(config.policies))
    payload = await json_object(request, config, limit_s, parser=parsed_with_image)
    encoded = "encoded" in payload
    body = typed(ActBody, await _inner(payload, config) if encoded else payload)
    policy = await served.chosen(policy_name(request, body.model), lambda policy: policy.acts)
    shape = _answer_format(request, policy)
    deadline_unix_s = arrived + min(limit_s, policy.request_deadline_s)
    with served.under_way(policy):
        asked = await question(body, request, policy, deadline_unix_s)
        result = await in_time(acting.act(policy.name, asked), deadline_unix_s)
    if encoded:
        content: Any = orjson.dumps(json_numpy(result.actions[0])).decode()
    elif body.test:
        content = {"action": result.actions[0].tolist(), "vlm_response": result.text}
    elif shape == "dict":
        content = _whole(result, policy)
    else:
        content = result.actions[0].tolist()
    return json_answer(content, headers=answer_headers(result))


async def reset(acting: Acts, request: Request, served: ServedPolicies) -> Response:
    """Forgets the session's history, of the policy that is named, else of all. The body may be empty."""
    config = served.config
    body = typed(ResetBody, await json_object(request, config, longest_s(config.policies), may_be_empty=True))
    name, session = policy_name(request, body.model), session_id(request, body.session_id)
    asked = served.config.policies if name is None else [await served.chosen(name, remembers)]
    for policy in filter(remembers, asked):
        await acting.reset(policy.name, session)
    return json_answer({"status": "reset successful"})


def remembers(policy: BasePolicy) -> bool:
    """Whether a policy has sessions."""
    return policy.acts or policy.plays


async def _inner(payload: Mapping[str, Any], config: ServeConfig) -> dict[str, Any]:
    text = payload["encoded"]
    if len(payload) != 1:
        raise PolicyError("invalid_request", "encoded: must be the only key of the body")
    if not isinstance(text, str):
        raise PolicyError("invalid_request", f"encoded: must be JSON as a string, not {type(text).__name__}")
    return await parsed(text.encode(), config.max_json_values, parsed_with_image)


def json_numpy(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    """An array as the json_numpy package writes it."""
    data = np.ascontiguousarray(array)
    return {
        "__numpy__": base64.b64encode(data.tobytes()).decode(),
        "dtype": data.dtype.newbyteorder("<").str,
        "shape": list(data.shape),
    }


def _answer_format(request: Request, policy: BasePolicy) -> Answer:
    asked = request.query_params.get("format")
    if asked is None:
        return policy.act.arm.answer if policy.act.arm is not None else "list"
    if asked not in ("list", "dict"):
        raise PolicyError("invalid_request", f"format: must be list or dict; got {asked[:60]!r}")
    return "dict" if asked == "dict" else "list"


def _whole(result: ActResult, policy: BasePolicy) -> dict[str, Any]:
    return {
        "action": result.actions[0].tolist(),
        "actions": result.actions.tolist(),
        "success": result.parse_ok,
        "info": {
            "vlm_response": result.text,
            "model": policy.name,
            "provider": getattr(policy, "kind", ""),
            "response_ms": round(result.total_ms, 3),
        },
        "request_id": result.request_id,
        "observation_id": result.observation_id or result.request_id,
        "weight_version": result.weight_version,
        "parse_ok": result.parse_ok,
        "interventions": list(result.interventions),
        "observation_age_ms": round(result.observation_age_ms, 3),
        "timing_ms": timing_ms(result),
    }
