"""RobotPolicyService behind Serve's gRPC proxy: what robots call for chunks of actions. Translation only.

A call names what the messages have no field for in its metadata, all of it optional: `x-tuner-api-key` (or
`authorization: Bearer K`), `x-policy`, `x-session-id`, `x-noise-seed`. A stream without `x-session-id` is a session of
its own; a single call without it belongs to none: behind a proxy all robots share the proxy's connection.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Protocol

import grpc

from configs.policies import BasePolicy
from configs.serving import GrpcConfig
from deployments.access.keys import from_authorization
from deployments.acting.observations import decoded
from deployments.errors import TABLE, PolicyError
from deployments.protocol import policy_pb2 as pb
from deployments.transports.front import Front
from deployments.transports.grpc_messages import act_request, response
from deployments.transports.http.answers import in_time, translated
from deployments.transports.in_order import by_size, in_order

KEY = "x-tuner-api-key"
WRONG_KEY = "Missing or invalid x-tuner-api-key"
LONGEST_NAME = 200


class Context(Protocol):
    """What is used of `ray.serve.grpc_util.RayServegRPCContext`, and of grpc.aio's own context."""

    def invocation_metadata(self) -> Any: ...

    def set_code(self, code: grpc.StatusCode) -> None: ...

    def set_details(self, details: str) -> None: ...

    def set_trailing_metadata(self, trailing_metadata: Any) -> None: ...


class RobotPolicyMethods:
    """The service's methods, for a Serve deployment to inherit. Serve calls them by name, and passes `grpc_context`."""

    def streaming_front(self) -> Front:
        raise NotImplementedError("the ingress says who acts, who may ask, and with which configuration")

    async def policy_statuses(self) -> Mapping[str, Mapping[str, Any]]:
        """Name -> what a replica of the policy says of itself: ready, device, message."""
        raise NotImplementedError("the ingress asks its replicas")

    async def GetActionChunk(self, request: pb.ObservationRequest, grpc_context: Context) -> pb.ActionChunkResponse:
        """A failure is told by the call's status. It is not raised: Serve would write a traceback for each."""
        try:
            call = await _Call.of(self.streaming_front(), grpc_context, session_id="")
            return await call.answer(request)
        except Exception as error:
            _tell(grpc_context, translated(error, request.request_id))
            return pb.ActionChunkResponse(request_id=request.request_id)

    async def StreamActionChunks(
        self, requests: AsyncIterator[pb.ObservationRequest], grpc_context: Context
    ) -> AsyncIterator[pb.ActionChunkResponse]:
        """Ends with the client's half-close, once everything is answered; the first failure ends it with a status."""
        front = self.streaming_front()
        try:
            call = await _Call.of(front, grpc_context, session_id=f"stream {uuid.uuid4().hex}")
            most = _grpc(front).max_unanswered
            try:
                async with aclosing(in_order(requests, call.answer, most, lambda r: by_size(r.ByteSize()))) as answers:
                    async for answer in answers:
                        yield answer
            finally:
                await call.forget()
        except Exception as error:
            failure = translated(error, "")
            _tell(grpc_context, failure)
            raise failure from error  # a stream's status goes out with an exception alone

    async def HealthCheck(self, request: pb.HealthCheckRequest, grpc_context: Context) -> pb.HealthCheckResponse:
        try:
            front = self.streaming_front()
            await _check_key(front, _metadata(grpc_context))
            name = _grpc(front).policy
            return _health(await self.policy_statuses(), name)
        except Exception as error:
            _tell(grpc_context, translated(error, ""))
            return pb.HealthCheckResponse()


class _Call:
    """One call with what its metadata says: which policy, whose session."""

    def __init__(self, front: Front, policy: BasePolicy, session_id: str, named: bool, noise_seed: int | None) -> None:
        self._front = front
        self._policy = policy
        self._session_id = session_id
        self._named = named
        self._noise_seed = noise_seed
        self._limits = front.limits(policy)

    @classmethod
    async def of(cls, front: Front, context: Context, session_id: str) -> _Call:
        """`session_id`: whose the call is unless it names one. Raises PolicyError."""
        metadata = _metadata(context)
        await _check_key(front, metadata)
        policy = await front.policy(metadata.get("x-policy") or _grpc(front).policy, lambda policy: policy.acts)
        named = metadata.get("x-session-id", "")
        if len(named) > LONGEST_NAME:
            raise PolicyError("invalid_request", f"x-session-id: at most {LONGEST_NAME} characters, not {len(named)}")
        return cls(front, policy, named or session_id, bool(named), _seed(metadata.get("x-noise-seed")))

    async def answer(self, message: pb.ObservationRequest) -> pb.ActionChunkResponse:
        most_bytes = _grpc(self._front).max_message_mb * 2**20
        if message.ByteSize() > most_bytes:
            raise PolicyError("too_large", f"a message of {message.ByteSize()} bytes; the limit is {most_bytes}")
        if not message.request_id:
            message.request_id = uuid.uuid4().hex
        if self._noise_seed is not None and not message.HasField("noise_seed"):
            message.noise_seed = self._noise_seed
        deadline_unix_s = time.time() + self._policy.request_deadline_s
        with self._front.served.under_way(self._policy):
            question = await decoded(
                act_request, message, self._session_id, deadline_unix_s, self._limits, self._policy.act.max_images
            )
            answer = self._front.acting.act(self._policy.name, question)
            return response(message.request_id, await in_time(answer, deadline_unix_s))

    async def forget(self) -> None:
        """The end of a session that nobody can come back to."""
        if not self._named:
            await self._front.acting.reset(self._policy.name, self._session_id)


async def _check_key(front: Front, metadata: Mapping[str, str]) -> None:
    try:
        await front.keys.authenticate(metadata.get(KEY) or from_authorization(metadata.get("authorization")))
    except PolicyError as error:
        if error.kind == "unauthenticated":
            raise PolicyError(error.kind, WRONG_KEY) from error
        raise


def _health(statuses: Mapping[str, Mapping[str, Any]], name: str | None) -> pb.HealthCheckResponse:
    """Of the policy that calls are answered by when they name none; of all together where there is no such one."""
    looked_at = {name: statuses[name]} if name is not None and name in statuses else dict(statuses)
    unready = [policy for policy, status in looked_at.items() if not status.get("ready", True)]
    total, used = (
        sum(float(status.get(field) or 0.0) for status in looked_at.values())
        for field in ("gpu_memory_total_gb", "gpu_memory_used_gb")
    )
    return pb.HealthCheckResponse(
        healthy=not unready,
        status=f"not ready: {', '.join(unready)}" if unready else "Server is running",
        model_name=", ".join(map(str, looked_at)),
        device=", ".join(sorted({str(status["device"]) for status in looked_at.values() if status.get("device")})),
        gpu_memory_used_gb=used,
        gpu_memory_total_gb=total,
    )


def _grpc(front: Front) -> GrpcConfig:
    return front.config.grpc or GrpcConfig()


def _metadata(context: Context) -> dict[str, str]:
    return {str(key).lower(): str(value) for key, value in context.invocation_metadata() or ()}


def _seed(text: str | None) -> int | None:
    if not text:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise PolicyError("invalid_request", f"x-noise-seed: must be a whole number, got {text[:40]!r}") from error


def _tell(context: Context, failure: PolicyError) -> None:
    context.set_code(grpc.StatusCode[TABLE[failure.kind].grpc_code])
    context.set_details(failure.message)
    trailing = [("x-error-kind", failure.kind), *failure.rate_limit]
    if failure.retryable:
        wait_s = 1.0 if failure.retry_after_s is None else failure.retry_after_s
        trailing.append(("grpc-retry-pushback-ms", str(int(1000 * wait_s))))
    context.set_trailing_metadata(trailing)
