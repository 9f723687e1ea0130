"""The HTTP front of the application: health, metrics and the OpenAI API, in front of the policy replicas.

Serve pickles the class below by value: what its methods call must be imported, not defined here.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import Response
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from configs.policies import PolicyConfig
from configs.serving import ServeConfig
from deployments.access.keys import Keys
from deployments.client.batcher import Batcher
from deployments.client.handle import abandon_on
from deployments.errors import PolicyError
from deployments.protocol.completion import Completion, CompletionAnswer, CompletionRequest
from deployments.protocol.exchange import HttpCall
from deployments.transports.http import access
from deployments.transports.http.answers import (
    answer_failures,
    awaitable,
    completion_answer,
    json_answer,
    model_card,
    request_id_of,
)
from deployments.transports.http.forward import forwarded
from deployments.transports.http.requests import (
    BODIES,
    CompletionBody,
    SampledBody,
    min_weight_version,
    parse,
    read_body,
    typed,
    within_bound,
)

api = FastAPI(title="rayward", version="0.1.0", description="Policies served by rayward", redirect_slashes=False)
answer_failures(api)
api.add_middleware(access.RequireKey)

FORWARDED = ("/v1/", "/tokenize", "/detokenize")
NOT_FORWARDED_HEADERS = ("authorization", "content-length", "host", "transfer-encoding")  # the key is for us alone


@serve.ingress(api)
class Ingress:
    """Translates HTTP and nothing else. Unknown model names are accepted while exactly one policy is loaded."""

    def __init__(self, config: dict[str, Any], **policies: Any) -> None:
        self.config = ServeConfig.model_validate(config)
        access.require(Keys.of(self.config.access))
        # Not the bound handles: they carry the settings of the process that bound them, and it may have imported Serve
        # before `THROUGHPUT_SWITCHES` were set. These talk gRPC to the replicas where the switches say so.
        app = serve.get_replica_context().app_name
        self._handles = {p.name: serve.get_deployment_handle(p.name, app) for p in self.config.policies}
        self._streams = {name: handle.options(stream=True) for name, handle in self._handles.items()}
        self._batchers: dict[str, Batcher[CompletionRequest, CompletionAnswer]] = {
            name: Batcher(
                stream.complete.remote,
                window_s=0.001,
                max_batch=16,
                size_of=lambda request: request.size_bytes,
                abandon=abandon_on(self._handles[name]),
            )
            for name, stream in self._streams.items()
        }

    def _policy(self, name: str | None) -> PolicyConfig:
        policies = self.config.policies
        found = next((policy for policy in policies if policy.name == name), None)
        if found is None and len(policies) == 1:
            return policies[0]
        if found is None:
            raise PolicyError("not_found", f"no policy {name!r}; loaded: {', '.join(sorted(self._handles))}")
        return found

    @api.api_route("/health", methods=["GET", "HEAD"])
    @api.api_route("/health/", methods=["GET", "HEAD"])
    async def health(self) -> Response:
        policies, healthy = {}, True
        for name, handle in self._handles.items():
            try:
                policies[name] = await asyncio.wait_for(awaitable(handle.status.remote()), timeout=5.0)
            except (TimeoutError, RayError, RayServeException) as error:
                healthy, policies[name] = False, {"policy": name, "ready": False, "message": type(error).__name__}
        body = {
            "status": "healthy" if healthy else "unhealthy",
            "ready": healthy,
            "service": "rayward",
            "timestamp": time.time(),
            "policies": policies,
        }
        return json_answer(body, 200 if healthy else 503)

    @api.get("/")
    async def root(self) -> Response:
        endpoints = sorted({route.path for route in api.routes if hasattr(route, "path")})
        return json_answer(
            {"name": "rayward", "status": "running", "policies": list(self._handles), "endpoints": endpoints}
        )

    @api.get("/metrics")
    async def metrics(self) -> Response:
        """This process's metrics; those of all processes are on Ray's metrics port."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        versions = []
        for name, handle in self._handles.items():
            status = await asyncio.wait_for(awaitable(handle.status.remote()), timeout=5.0)
            versions.append(f'rayward_policy_weight_version{{policy="{name}"}} {status["weight_version"]}\n')
        text = "# TYPE rayward_policy_weight_version gauge\n" + "".join(versions)
        return Response(generate_latest() + text.encode(), media_type=CONTENT_TYPE_LATEST)

    @api.get("/v1/models")
    @api.get("/v1/models/")
    async def models(self) -> Response:
        return json_answer({"object": "list", "data": [model_card(name) for name in self._handles]})

    @api.get("/v1/models/{name}")
    async def model(self, name: str) -> Response:
        if name not in self._handles:
            raise PolicyError("not_found", f"no policy {name!r}; loaded: {', '.join(sorted(self._handles))}")
        return json_answer(model_card(name))

    @api.post("/v1/completions")
    async def completions(self, request: Request) -> Response:
        """The short way where a request is plain (batched, without vLLM's HTTP layer), else vLLM's own route."""
        payload = parse(await read_body(request, self.config.max_body_bytes))
        body = typed(CompletionBody, payload)
        policy, request_id = self._policy(body.model), request_id_of(request)
        within_bound(body, policy.max_new_tokens)
        plain = body.plain(
            f"cmpl-{request_id}-{uuid.uuid4().hex[:8]}",
            min_weight_version(request),
            policy.request_deadline_s,
            time.time(),
        )
        if plain is None:
            return await self._forward(request, "/v1/completions", payload, body)
        answer = await self._batchers[policy.name](plain, policy.request_deadline_s)
        if not isinstance(answer, Completion):
            raise PolicyError(answer.kind, answer.message)
        return completion_answer(answer, policy.name, request_id)

    @api.api_route("/{path:path}", methods=["GET", "POST"])
    async def forward(self, path: str, request: Request) -> Response:
        """Everything else of the OpenAI API goes to vLLM's own routes inside a replica."""
        path = f"/{path}".rstrip("/")
        if not path.startswith(FORWARDED):
            if any(getattr(route, "path", None) == path for route in api.routes):
                raise PolicyError("method_not_allowed", f"{path} does not take {request.method}")
            raise PolicyError("not_found", f"no route {path}; GET / lists the routes")
        content = await read_body(request, self.config.max_body_bytes)
        if not content:
            return await self._forward(request, path, None, SampledBody())
        payload = parse(content)
        return await self._forward(request, path, payload, typed(BODIES.get(path, SampledBody), payload))

    async def _forward(
        self, request: Request, path: str, payload: dict[str, Any] | None, body: SampledBody
    ) -> Response:
        policy = self._policy(body.model)
        changes = within_bound(body, policy.max_new_tokens) | {"model": policy.name}
        headers = [(k, v) for k, v in request.headers.items() if k.lower() not in NOT_FORWARDED_HEADERS]
        call = HttpCall(
            request_id=request_id_of(request),
            method=request.method,
            path=path,
            query=request.url.query,
            headers=tuple(headers),
            body=b"" if payload is None else orjson.dumps(payload | changes),
            deadline_unix_s=time.time() + policy.request_deadline_s,
            min_weight_version=min_weight_version(request),
        )
        return await forwarded(call, self._streams[policy.name].openai.remote)
