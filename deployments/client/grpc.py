"""gRPC client of policies that answer with chunks of actions (RobotPolicyService). No ray, torch or vllm.

with RobotClient("gpu-machine:50051") as robot:
    chunk = robot.act(Seen(images=[base(), wrist()], instruction="fold the towel", state=joints())).actions
    for told in robot.stream(observations()):
        ...
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any, Literal, Self

import grpc
import numpy as np

from deployments.client.images import Compression, png
from deployments.client.observing import Seen, Told
from deployments.client.retrying import async_retrying, retrying
from deployments.errors import TABLE, PolicyError
from deployments.protocol import policy_pb2 as pb
from deployments.protocol.policy_pb2_grpc import RobotPolicyServiceStub

MOST_BYTES = 100 * 2**20
CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", MOST_BYTES),
    ("grpc.max_receive_message_length", MOST_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.enable_retries", 0),  # ours know the request's deadline, and what the server calls retryable
]


class _Spoken:
    """What the two clients have in common: how questions are put, and answers read."""

    def __init__(
        self,
        target: str,
        key: str | None = None,
        policy: str | None = None,
        session_id: str | None = None,
        timeout_s: float = 5.0,
        retries: int = 3,
        encoding: Literal["jpeg", "png"] = "jpeg",
        compression: Compression = Compression(),  # noqa: B008  frozen
    ) -> None:
        """`target`: host:port. `policy`: needed where several policies could answer. `session_id`: by default,
        each stream is a session, and a single question belongs to none. `timeout_s`: of a question, all its tries
        together. `encoding`: png loses nothing, and is not made smaller."""
        self._target = target
        self._timeout_s = timeout_s
        self._retries = retries
        self._encoding = encoding
        self._compression = compression
        named = {"x-tuner-api-key": key, "x-policy": policy, "x-session-id": session_id}
        self._metadata = [(name, value) for name, value in named.items() if value]

    def _message(self, seen: Seen) -> pb.ObservationRequest:
        message = pb.ObservationRequest(
            images=[self._image(frame) for frame in seen.images],
            robot_state=pb.RobotState(state=seen.state_list()),
            prompt=seen.instruction,
            timestamp_ns=int(seen.taken_unix_s * 1e9),
            request_id=seen.request_id,
        )
        if seen.committed is not None:
            message.prefix_action.extend(pb.ActionVector(values=row.tolist()) for row in seen.committed.actions)
            message.delay = seen.committed.delay
        if seen.noise_seed is not None:
            message.noise_seed = seen.noise_seed
        return message

    def _image(self, frame: Any) -> pb.CameraImage:
        if frame is None:
            return pb.CameraImage(encoding=self._encoding)
        data = png(frame) if self._encoding == "png" else self._compression.jpeg(frame)
        return pb.CameraImage(image_data=data, encoding=self._encoding)

    def _failure(self, error: Any, request_id: str) -> PolicyError:
        """What the end of a call means: the server's own kind, or the nearest to gRPC's code."""
        trailing = {str(key): str(value) for key, value in error.trailing_metadata() or ()}
        code, details = error.code().name, error.details() or ""
        kind = trailing.get("x-error-kind", "")
        if kind not in TABLE:
            kind = next((name for name, entry in TABLE.items() if entry.grpc_code == code), "internal")
        pushback_ms = trailing.get("grpc-retry-pushback-ms", "")
        wait_s = int(pushback_ms) / 1000 if pushback_ms.isdigit() else None
        return PolicyError(kind, f"{self._target}: {details or code}", request_id, wait_s)


class RobotClient(_Spoken):
    """Blocks until the answer is there. Raises PolicyError with the server's kind; "unavailable" when it cannot be
    reached, "deadline_exceeded" after `timeout_s`."""

    def __init__(self, target: str, **settings: Any) -> None:
        super().__init__(target, **settings)
        self._channel = grpc.insecure_channel(target, CHANNEL_OPTIONS)
        self._stub = RobotPolicyServiceStub(self._channel)

    def act(self, seen: Seen) -> Told:
        message, deadline = self._message(seen), time.monotonic() + self._timeout_s
        answer: pb.ActionChunkResponse = retrying(self._retries, self._timeout_s)(self._once, message, deadline)
        return told(answer)

    def stream(self, seen: Iterable[Seen]) -> Iterator[Told]:
        """Answers in the order of the observations, which are sent as they come. The first failure ends it; nothing is
        tried again: the next observation is worth more. Whoever stops iterating cancels it."""
        call = self._stub.StreamActionChunks(map(self._message, seen), metadata=self._metadata)
        try:
            for answer in call:
                yield told(answer)
        except grpc.RpcError as error:
            raise self._failure(error, "") from error
        finally:
            call.cancel()

    def health(self) -> pb.HealthCheckResponse:
        try:
            found: pb.HealthCheckResponse = self._stub.HealthCheck(
                pb.HealthCheckRequest(), timeout=self._timeout_s, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise self._failure(error, "") from error
        return found

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _once(self, message: pb.ObservationRequest, deadline: float) -> pb.ActionChunkResponse:
        try:
            left_s = max(0.001, deadline - time.monotonic())
            answer: pb.ActionChunkResponse = self._stub.GetActionChunk(message, timeout=left_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._failure(error, message.request_id) from error
        return answer


class AsyncRobotClient(_Spoken):
    """As RobotClient, for asyncio; a cancelled question is cancelled at the server, too."""

    def __init__(self, target: str, **settings: Any) -> None:
        super().__init__(target, **settings)
        self._channel = grpc.aio.insecure_channel(target, CHANNEL_OPTIONS)
        self._stub = RobotPolicyServiceStub(self._channel)

    async def act(self, seen: Seen) -> Told:
        message, deadline = self._message(seen), time.monotonic() + self._timeout_s
        return told(await async_retrying(self._retries, self._timeout_s)(self._once, message, deadline))

    async def stream(self, seen: AsyncIterable[Seen]) -> AsyncIterator[Told]:
        """As RobotClient.stream."""
        call = self._stub.StreamActionChunks((self._message(one) async for one in seen), metadata=self._metadata)
        try:
            async for answer in call:
                yield told(answer)
        except grpc.RpcError as error:
            raise self._failure(error, "") from error
        finally:
            call.cancel()

    async def close(self) -> None:
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _once(self, message: pb.ObservationRequest, deadline: float) -> pb.ActionChunkResponse:
        try:
            left_s = max(0.001, deadline - time.monotonic())
            answer: pb.ActionChunkResponse = await self._stub.GetActionChunk(
                message, timeout=left_s, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise self._failure(error, message.request_id) from error
        return answer


def told(answer: pb.ActionChunkResponse) -> Told:
    return Told(
        request_id=answer.request_id,
        actions=np.array([row.values for row in answer.action_chunk], np.float32),
        weight_version=answer.weight_version,
        interventions=tuple(answer.interventions),
        infer_ms=answer.inference_time_ms,
        observation_age_ms=answer.observation_age_ms,
    )
