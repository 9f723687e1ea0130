"""The HTTP front of the application: health, metrics, robots, players and the OpenAI API, in front of the replicas.

Serve pickles the class below by value: what its methods call must be imported, not defined here.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

import orjson
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import Response
from ray import serve

from configs.policies import PolicyConfig
from configs.serving import ServeConfig
from deployments.access.keys import Keys
from deployments.client.batcher import Batcher
from deployments.client.handle import abandon_on
from deployments.errors import PolicyError
from deployments.protocol.completion import Completion, CompletionAnswer, CompletionRequest
from deployments.protocol.exchange import HttpCall
from deployments.transports.acting import acting_of
from deployments.transports.front import Front
from deployments.transports.grpc_service import RobotPolicyMethods
from deployments.transports.http import access, cors
from deployments.transports.http.act import act, reset
from deployments.transports.http.answers import (
    answer_failures,
    completion_answer,
    json_answer,
    model_card,
    request_id_of,
)
from deployments.transports.http.asked import chatting, chosen, parsed, time_limit_s
from deployments.transports.http.forward import forwarded
from deployments.transports.http.game import get_action
from deployments.transports.http.health import acting_metrics, health, root, statuses
from deployments.transports.http.requests import (
    BODIES,
    CompletionBody,
    SampledBody,
    min_weight_version,
    read_body,
    typed,
    within_bound,
)
from deployments.transports.websocket.game_stream import serve_game
from deployments.transports.websocket.openpi import serve_openpi

api = FastAPI(title="rayward", version="0.1.0", description="Policies served by rayward", redirect_slashes=False)
answer_failures(api)
api.add_middleware(access.RequireKey)
api.add_middleware(cors.AllowOrigins)  # outside: a page must be able to read that its key is wrong

CHAT = "/v1/chat/completions"
FORWARDED = ("/v1/", "/tokenize", "/detokenize")
NOT_FORWARDED_HEADERS = ("authorization", "content-length", "host", "transfer-encoding")  # the key is for us alone


@serve.ingress(api)
class Ingress(RobotPolicyMethods):
    """Translates HTTP, WebSocket and gRPC, and nothing else. An unknown model name is accepted while exactly one policy
    can answer."""

    def __init__(self, config: dict[str, Any], **policies: Any) -> None:
        self.config = ServeConfig.model_validate(config)
        self._keys = Keys.of(self.config.access)
        access.require(self._keys)
        cors.allow(self.config.http.cors_origins)
        # Not the bound handles: they carry the settings of the process that bound them, and it may have imported Serve
        # before `THROUGHPUT_SWITCHES` were set. These talk gRPC to the replicas where the switches say so.
        app = serve.get_replica_context().app_name
        self._handles = {p.name: serve.get_deployment_handle(p.name, app) for p in self.config.policies}
        self._streams = {name: handle.options(stream=True) for name, handle in self._handles.items()}
        self._texts = [p for p in self.config.policies if isinstance(p, PolicyConfig)]
        self._batchers: dict[str, Batcher[CompletionRequest, CompletionAnswer]] = {
            policy.name: Batcher(
                self._streams[policy.name].complete.remote,
                window_s=0.001,
                max_batch=16,
                size_of=lambda request: request.size_bytes,
                abandon=abandon_on(self._handles[policy.name]),
            )
            for policy in self._texts
        }
        self.acting = acting_of(self.config, self._handles)

    def streaming_front(self) -> Front:
        return Front(self.acting, self._keys, self.config)

    async def policy_statuses(self) -> dict[str, Any]:
        return await statuses(self._handles)

    def _policy(self, name: str | None) -> PolicyConfig:
        """Who answers the OpenAI API, conversations aside. Raises PolicyError."""
        found = chosen(self.config.policies, name, lambda policy: isinstance(policy, PolicyConfig))
        assert isinstance(found, PolicyConfig)
        return found

    @api.api_route("/health", methods=["GET", "HEAD"])
    @api.api_route("/health/", methods=["GET", "HEAD"])
    async def health(self) -> Response:
        body = health(self.config, await statuses(self._handles), time.time())
        return json_answer(body, 200 if body["ready"] else 503)

    @api.get("/")
    async def root(self) -> Response:
        return json_answer(root(self.config, sorted({route.path for route in api.routes if hasattr(route, "path")})))

    @api.post("/act")
    @api.post("/act/")
    @api.post("/policies/{name}/act")
    async def act(self, request: Request) -> Response:
        return await act(self.acting, request, self.config)

    @api.post("/reset")
    @api.post("/reset/")
    @api.post("/policies/{name}/reset")
    async def reset(self, request: Request) -> Response:
        return await reset(self.acting, request, self.config)

    @api.post("/get_action")
    @api.post("/get_action/")
    @api.post("/policies/{name}/get_action")
    async def get_action(self, request: Request) -> Response:
        return await get_action(self.acting, request, self.config)

    @api.get("/healthz")
    async def healthz(self) -> Response:
        return Response("OK", media_type="text/plain")

    @api.websocket("/")
    @api.websocket("/policies/{name}")
    async def openpi(self, socket: WebSocket) -> None:
        await serve_openpi(socket, self.streaming_front())

    @api.websocket("/stream")
    @api.websocket("/policies/{name}/stream")
    async def stream(self, socket: WebSocket) -> None:
        await serve_game(socket, self.streaming_front())

    @api.get("/metrics")
    async def metrics(self) -> Response:
        """This process's metrics; those of all processes are on Ray's metrics port."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        versions = [
            f'rayward_policy_weight_version{{policy="{name}"}} {status["weight_version"]}\n'
            for name, status in (await statuses(self._handles)).items()
            if "weight_version" in status
        ]
        text = "# TYPE rayward_policy_weight_version gauge\n" + "".join(versions)
        text += acting_metrics(self.acting.counts)
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
        payload = await parsed(await read_body(request, self.config.max_body_bytes), self.config.max_json_values)
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
        """Everything else of the OpenAI API goes to vLLM's own routes inside a replica; a conversation with a model
        behind an API goes to that one's replica."""
        path = f"/{path}".rstrip("/")
        if not path.startswith(FORWARDED):
            if any(getattr(route, "path", None) == path for route in api.routes):
                raise PolicyError("method_not_allowed", f"{path} does not take {request.method}")
            raise PolicyError("not_found", f"no route {path}; GET / lists the routes")
        content = await read_body(request, self.config.max_body_bytes)
        if not content:
            return await self._forward(request, path, None, SampledBody())
        payload = await parsed(content, self.config.max_json_values)
        return await self._forward(request, path, payload, typed(BODIES.get(path, SampledBody), payload))

    async def _forward(
        self, request: Request, path: str, payload: dict[str, Any] | None, body: SampledBody
    ) -> Response:
        chat = path == CHAT
        policy = chatting(self.config.policies, body.model) if chat else self._policy(body.model)
        changes = within_bound(body, policy.max_new_tokens) | {"model": policy.name}
        headers = [(k, v) for k, v in request.headers.items() if k.lower() not in NOT_FORWARDED_HEADERS]
        call = HttpCall(
            request_id=request_id_of(request),
            method=request.method,
            path=path,
            query=request.url.query,
            headers=tuple(headers),
            body=b"" if payload is None else orjson.dumps(payload | changes),
            deadline_unix_s=time.time() + time_limit_s(request, policy.request_deadline_s),
            min_weight_version=min_weight_version(request),
        )
        return await forwarded(call, self._streams[policy.name].openai.remote)
