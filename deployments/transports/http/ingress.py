"""The HTTP front of the application: health, metrics, policies, robots, players and the OpenAI API.

Serve pickles the class below by value: what its methods call must be imported, not defined here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import orjson
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import Response
from ray import serve

from configs.policies import AnyPolicy, PolicyConfig, ProviderPolicy
from configs.serving import ServeConfig
from deployments.access.keys import Keys
from deployments.errors import PolicyError
from deployments.protocol.exchange import HttpCall
from deployments.transports.acting import acting_of, add_policy
from deployments.transports.front import Front
from deployments.transports.grpc_service import RobotPolicyMethods
from deployments.transports.http import access, cors
from deployments.transports.http.act import act, reset
from deployments.transports.http.answers import (
    answer_failures,
    json_answer,
    model_card,
    request_id_of,
)
from deployments.transports.http.asked import acts, chats, named_by_model, parsed, plays, speaks, time_limit_s
from deployments.transports.http.forward import forwarded
from deployments.transports.http.game import get_action
from deployments.transports.http.handles import PolicyHandles
from deployments.transports.http.health import acting_metrics, health, root, statuses
from deployments.transports.http.manage import delete_policy, policies, put_policy, switched_on
from deployments.transports.http.places import Places
from deployments.transports.http.plain import Terms, plain, wants_usage
from deployments.transports.http.requests import (
    BODIES,
    SampledBody,
    min_weight_version,
    read_body,
    typed,
    within_bound,
)
from deployments.transports.http.text_answers import Asked, ChatFormat, CompletionFormat, Format, text_response
from deployments.transports.loaded import Notice, Serving
from deployments.transports.managed import ManagedPolicies
from deployments.transports.policies import ServedPolicies
from deployments.transports.websocket.game_stream import serve_game
from deployments.transports.websocket.openpi import serve_openpi

api = FastAPI(title="rayward", version="0.1.0", description="Policies served by rayward", redirect_slashes=False)
answer_failures(api)
api.add_middleware(access.RequireKey)
api.add_middleware(cors.AllowOrigins)  # outside: a page must be able to read that its key is wrong

CHAT = "/v1/chat/completions"
FORMATS: dict[str, Format] = {CHAT: ChatFormat(), "/v1/completions": CompletionFormat()}
FORWARDED = ("/v1/", "/tokenize", "/detokenize")
NOT_FORWARDED_HEADERS = ("authorization", "content-length", "host", "transfer-encoding")  # the key is for us alone


@serve.ingress(api)
class Ingress(RobotPolicyMethods):
    """Translates HTTP, WebSocket and gRPC, and nothing else. An unknown model name is accepted while exactly one policy
    can answer, unless policies may come and go."""

    def __init__(
        self, config: dict[str, Any], manage: Callable[[str, str], Serving] | None = None, **policies: Any
    ) -> None:
        """`manage`: what loads policies while the application runs, by the names of the application and of this
        deployment; None where nobody may load any."""
        self._served = ServedPolicies(ServeConfig.model_validate(config))
        self._keys = Keys.of(self.config.access)
        access.require(self._keys)
        cors.allow(self.config.http.cors_origins)
        # Not the bound handles: they carry the settings of the process that bound them, and it may have imported Serve
        # before `THROUGHPUT_SWITCHES` were set. These talk gRPC to the replicas where the switches say so.
        context = serve.get_replica_context()
        self._asked = PolicyHandles()
        for policy in self.config.policies:
            self._asked.connect(policy, serve.get_deployment_handle(policy.name, context.app_name))
        self.acting = acting_of(self.config, self._asked.handles)
        self._places = Places(lambda: self.config)
        self._managed: ManagedPolicies | None = None
        if manage is not None:
            serving = manage(context.app_name, context.deployment)
            self._managed = ManagedPolicies(self._served, serving, self._connect, self._disconnect)
            self._watching = asyncio.get_running_loop().create_task(self._managed.watch())

    @property
    def config(self) -> ServeConfig:
        """With the policies that are served now."""
        return self._served.config

    def streaming_front(self) -> Front:
        return Front(self.acting, self._keys, self._served)

    async def policy_statuses(self) -> dict[str, Any]:
        return await statuses({policy.name: self._asked.handles[policy.name] for policy in self.config.policies})

    async def policy_changes(self, notice: Notice) -> None:
        """An ingress process has begun to load or unload a policy: it tells all of them."""
        switched_on(self._managed).heard(notice)

    async def drain_policy(self, name: str, limit_s: float) -> None:
        """Returns once no request to the policy is under way here, after `limit_s` at the latest."""
        await switched_on(self._managed).drained(name, limit_s)

    def _connect(self, policy: AnyPolicy, handle: Any) -> None:
        add_policy(self.acting, policy, handle)
        self._asked.connect(policy, handle)

    def _disconnect(self, name: str) -> None:
        self.acting.remove(name)
        self._asked.disconnect(name)

    async def _policy(self, name: str | None) -> PolicyConfig:
        """Who answers the OpenAI API, conversations aside. Raises PolicyError."""
        found = await self._served.chosen(name, speaks)
        assert isinstance(found, PolicyConfig)
        return found

    async def _chatting(self, name: str | None) -> PolicyConfig | ProviderPolicy:
        """Who answers a conversation. Raises PolicyError."""
        found = await self._served.chosen(named_by_model(self.config.policies, name), chats)
        assert isinstance(found, PolicyConfig | ProviderPolicy)
        return found

    @api.api_route("/health", methods=["GET", "HEAD"])
    @api.api_route("/health/", methods=["GET", "HEAD"])
    async def health(self) -> Response:
        body = health(self.config, await self.policy_statuses(), time.time())
        return json_answer(body, 200 if body["ready"] else 503)

    @api.get("/")
    async def root(self) -> Response:
        return json_answer(root(self.config, sorted({route.path for route in api.routes if hasattr(route, "path")})))

    @api.get("/policies")
    @api.get("/policies/")
    async def policies(self) -> Response:
        if self._managed is not None:
            await self._managed.look_quietly()
        return policies(self._served, self._managed, await self.policy_statuses())

    @api.put("/policies/{name}")
    async def put_policy(self, name: str, request: Request) -> Response:
        return await put_policy(switched_on(self._managed), name, request)

    @api.delete("/policies/{name}")
    async def delete_policy(self, name: str) -> Response:
        return await delete_policy(switched_on(self._managed), name)

    @api.post("/act")
    @api.post("/act/")
    @api.post("/policies/{name}/act")
    async def act(self, request: Request) -> Response:
        with self._places.of(request, acts):
            return await act(self.acting, request, self._served)

    @api.post("/reset")
    @api.post("/reset/")
    @api.post("/policies/{name}/reset")
    async def reset(self, request: Request) -> Response:
        return await reset(self.acting, request, self._served)

    @api.post("/get_action")
    @api.post("/get_action/")
    @api.post("/policies/{name}/get_action")
    async def get_action(self, request: Request) -> Response:
        with self._places.of(request, plays):
            return await get_action(self.acting, request, self._served)

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
            for name, status in (await self.policy_statuses()).items()
            if "weight_version" in status
        ]
        text = "# TYPE rayward_policy_weight_version gauge\n" + "".join(versions)
        text += acting_metrics(self.acting.counts)
        return Response(generate_latest() + text.encode(), media_type=CONTENT_TYPE_LATEST)

    @api.get("/v1/models")
    @api.get("/v1/models/")
    async def models(self) -> Response:
        return json_answer({"object": "list", "data": [model_card(policy.name) for policy in self.config.policies]})

    @api.get("/v1/models/{name}")
    async def model(self, name: str) -> Response:
        if all(policy.name != name for policy in self.config.policies):
            raise PolicyError("not_found", f"no policy {name!r}; loaded: {self._served.names()}")
        return json_answer(model_card(name))

    @api.post("/v1/completions")
    async def completions(self, request: Request) -> Response:
        return await self.forward("v1/completions", request)

    @api.post("/v1/chat/completions")
    async def chat_completions(self, request: Request) -> Response:
        return await self.forward("v1/chat/completions", request)

    @api.api_route("/{path:path}", methods=["GET", "POST"])
    async def forward(self, path: str, request: Request) -> Response:
        """The OpenAI API: plain requests take the short way to the engine (batched, without vLLM's HTTP layer), all
        others go to vLLM's own routes inside a replica, and a conversation with a model behind an API to that one's
        replica."""
        path = f"/{path}".rstrip("/")
        if not path.startswith(FORWARDED):
            if any(getattr(route, "path", None) == path for route in api.routes):
                raise PolicyError("method_not_allowed", f"{path} does not take {request.method}")
            raise PolicyError("not_found", f"no route {path}; GET / lists the routes")
        with self._places.of(request, chats if path == CHAT else speaks) if path in BODIES else nullcontext():
            content = await read_body(request, self.config.max_body_bytes)
            if not content and (request.method == "GET" or path not in BODIES):
                return await self._forward(request, path, None, SampledBody())
            payload = await parsed(content, self.config.max_json_values)
            return await self._forward(request, path, payload, typed(BODIES.get(path, SampledBody), payload))

    async def _forward(
        self, request: Request, path: str, payload: dict[str, Any] | None, body: SampledBody
    ) -> Response:
        policy = await (self._chatting(body.model) if path == CHAT else self._policy(body.model))
        changes = within_bound(body, policy.max_new_tokens, policy.context_tokens) | {"model": policy.name}
        limit_s, now = time_limit_s(request, policy.request_deadline_s), time.time()
        terms = Terms(request_id_of(request), min_weight_version(request), limit_s, now)
        post = request.method == "POST"
        if post and isinstance(policy, PolicyConfig) and (short := plain(body, changes, terms)) is not None:
            asked = Asked(short, FORMATS[path], policy.name, terms.request_id, wants_usage(body))
            with self._served.under_way(policy):
                return await text_response(self._asked.batchers[policy.name], asked)
        headers = [(k, v) for k, v in request.headers.items() if k.lower() not in NOT_FORWARDED_HEADERS]
        call = HttpCall(
            request_id=terms.request_id,
            method=request.method,
            path=path,
            query=request.url.query,
            headers=tuple(headers),
            body=b"" if payload is None else orjson.dumps(payload | changes),
            deadline_unix_s=now + limit_s,
            min_weight_version=terms.min_weight_version,
        )
        with self._served.under_way(policy):  # a stream that has begun is drained by its replica
            return await forwarded(call, self._asked.streams[policy.name].openai.remote)
