"""The HTTP front of the application: health, metrics and the OpenAI API, in front of the policy replicas."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from configs.serving import ServeConfig
from deployments.client.batcher import Batcher
from deployments.errors import PolicyError
from deployments.transports.http.answers import awaitable, failed, json_answer, parse
from deployments.transports.http.openai import completion_body, plain_completion

logger = logging.getLogger("ray.serve")


api = FastAPI(title="rayward", version="0.1.0", description="Policies served by rayward")


FORWARDED = ("/v1/", "/tokenize", "/detokenize")


@serve.ingress(api)
class Ingress:
    """Translates HTTP and nothing else. Unknown model names are accepted while exactly one policy is loaded."""

    def __init__(self, config: dict[str, Any], **policies: Any) -> None:
        self.config = ServeConfig.model_validate(config)
        # Not the bound handles: they carry the settings of the process that bound them, and it may have imported Serve
        # before `THROUGHPUT_SWITCHES` were set. These talk gRPC to the replicas where the switches say so.
        app = serve.get_replica_context().app_name
        self._handles = {p.name: serve.get_deployment_handle(p.name, app) for p in self.config.policies}
        self._streams = {name: handle.options(stream=True) for name, handle in self._handles.items()}
        self._batchers = {
            name: Batcher(stream.complete.remote, window_s=0.001, max_batch=16)
            for name, stream in self._streams.items()
        }

    def _policy(self, name: str | None) -> str:
        if name in self._handles:
            return name
        if len(self._handles) == 1:
            return next(iter(self._handles))
        raise PolicyError("not_found", f"no policy {name!r}; loaded: {', '.join(sorted(self._handles))}")

    @api.get("/health")
    @api.get("/health/")
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
    async def models(self) -> Response:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "rayward"} for name in self._handles]
        return json_answer({"object": "list", "data": data})

    @api.post("/v1/completions")
    async def completions(self, request: Request) -> Response:
        request_id = request.headers.get("x-request-id") or uuid.uuid4().hex
        try:
            body = await self._body(request)
            payload = parse(body)
            plain = plain_completion(payload, request_id)
            if plain is None:
                return await self._forward(request, body, payload.get("model"))
            name = self._policy(payload.get("model"))
            policy = next(p for p in self.config.policies if p.name == name)
            if plain["max_tokens"] > policy.max_new_tokens:
                raise PolicyError("too_large", f"max_tokens {plain['max_tokens']} is over {policy.max_new_tokens}")
            answer = await self._batchers[name](plain, policy.request_deadline_s)
            if "kind" in answer:
                raise PolicyError(answer["kind"], answer["message"])
            return json_answer(completion_body(answer, name, request_id))
        except Exception as error:
            return failed(error, request_id)

    @api.api_route("/{path:path}", methods=["GET", "POST"])
    async def forward(self, path: str, request: Request) -> Response:
        """Everything else of the OpenAI API goes to vLLM's own routes inside a replica."""
        request_id = request.headers.get("x-request-id") or uuid.uuid4().hex
        try:
            if not f"/{path}".startswith(FORWARDED):
                raise PolicyError("not_found", f"no route /{path}; GET / lists the routes")
            body = await self._body(request)
            model = parse(body).get("model") if body else None
            return await self._forward(request, body, model)
        except Exception as error:
            return failed(error, request_id)

    async def _body(self, request: Request) -> bytes:
        limit = self.config.max_body_bytes
        if int(request.headers.get("content-length") or 0) > limit:
            raise PolicyError("too_large", f"the body is over {limit} bytes")
        body = await request.body()
        if len(body) > limit:
            raise PolicyError("too_large", f"the body is over {limit} bytes")
        return body

    async def _forward(self, request: Request, body: bytes, model: str | None) -> Response:
        name = self._policy(model)
        if model != name and body:
            body = orjson.dumps(parse(body) | {"model": name})
        headers = [(k, v) for k, v in request.headers.items() if k.lower() not in ("content-length", "host")]
        pieces = aiter(
            self._streams[name].openai.remote(request.method, request.url.path, request.url.query, headers, body)
        )
        head: dict[str, Any] = await anext(pieces)

        async def rest() -> AsyncIterator[bytes]:
            async for piece in pieces:
                yield piece

        shown = {k: v for k, v in head["headers"] if k.lower() not in ("content-length", "transfer-encoding")}
        return StreamingResponse(rest(), status_code=head["status"], headers=shown)
