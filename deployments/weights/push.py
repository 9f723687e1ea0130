"""Weight versions pushed into running engines: NCCL broadcast or CUDA IPC, through vLLM's weight-sync calls."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from vllm.distributed.weight_transfer.base import TrainerWeightTransferEngine, WeightSource
from deployments.weights.publishers import gathered
from deployments.weights.push_steps import AbortPush, FinishPush, OpenGroup, PushPart, PushStep, StartPush

logger = logging.getLogger("rayward")


PUSH_DEADLINE_S = 300.0  # an engine whose learner takes longer aborts the push itself


class Control(Protocol):
    """One or more engines that take up pushed versions, step by step (`push_steps` says what each step does).
    Synchronous: `push` returns when all engines have done the step. A started push ends with `finish` or `abort`."""

    def push(self, step: PushStep) -> None: ...


class NcclPublisher:
    """Broadcast over NCCL to the engines that exist now (backend "nccl"), 1 + their workers ranks in the group.

    The group is fixed: when a replica comes or goes, close this one and make another. Publish to a store as well
    (`store_then_push.StoreThenPush` does both), so that late ones have where to get the version from.
    """

    def __init__(
        self,
        control: Control,
        workers: int,
        master_address: str,
        master_port: int,
        rank: int = 0,
        dtype: torch.dtype | None = None,
    ) -> None:
        self._sender = _Sender(control, rank, dtype)
        self._workers, self._address, self._port = workers, master_address, master_port

    def publish(self, version: int, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        info = NCCLTrainerInitInfo(self._address, self._port, 1 + self._workers, rank=self._sender.rank)
        self._sender.send(version, tensors, info)

    def close(self) -> None:
        self._sender.close()


class IpcPublisher:
    """Through CUDA IPC handles to engines on the learner's own GPUs (backend "ipc"): no copy over a wire.

    The engines' processes and this one need VLLM_ALLOW_INSECURE_SERIALIZATION=1: handles are not plain data.
    """

    def __init__(self, control: Control, rank: int = 0, dtype: torch.dtype | None = None, packed: bool = True) -> None:
        self._sender = _Sender(control, rank, dtype)
        self._packed = packed

    def publish(self, version: int, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

        self._sender.send(version, tensors, IPCTrainerInitInfo(packed=self._packed, rank=self._sender.rank))

    def close(self) -> None:
        self._sender.close()


class ServeControl:
    """All replicas of a policy, driven as one through their Serve handle: a call goes to every replica at once, since
    in `init` and `update` they wait for each other. Each replica adds its own offset to the NCCL rank."""

    def __init__(self, handle: Any, timeout_s: float = 120.0) -> None:
        self._handle, self._timeout_s = handle, timeout_s

    def members(self) -> tuple[tuple[int, float], ...]:
        """(process id, start time) of each replica: changes whenever one comes or goes."""
        found = self._handle.broadcast("status").results(timeout_s=self._timeout_s)
        return tuple(sorted((status["pid"], status["started"]) for status in found))

    def push(self, step: PushStep) -> None:
        self._handle.broadcast("push", step).results(timeout_s=self._timeout_s)


class LlmControl:
    """An offline `vllm.LLM` in this process. It generates only when called: there is nothing to pause."""

    def __init__(self, llm: Any) -> None:
        self._llm = llm

    def push(self, step: PushStep) -> None:
        match step:
            case OpenGroup(info):
                self._llm.init_weight_transfer_engine({"init_info": info})
            case StartPush():
                self._llm.reset_prefix_cache()
                self._llm.start_weight_update()
            case PushPart(_, info):
                self._llm.update_weights({"update_info": info})
            case FinishPush(version):
                self._llm.finish_weight_update(str(version))
            case AbortPush():
                pass  # whoever owns the LLM sees the exception that led here


class _Sender:
    """One of vLLM's trainer-side engines, opened at the first publication; carries the version to `finish`."""

    def __init__(self, control: Control, rank: int, dtype: torch.dtype | None) -> None:
        self.rank = rank
        self._dtype = dtype
        self._client = PushClient(control)
        self._source: Any = None
        self._engine: TrainerWeightTransferEngine[Any] | None = None

    def send(self, version: int, tensors: Iterable[tuple[str, torch.Tensor]], info: Any) -> None:
        pairs = list(tensors)
        self._client.version = version
        if self._engine is None:
            from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

            self._source = _source(self._dtype)
            self._source.pairs = pairs
            self._engine = WeightTransferTrainerFactory.trainer_init(info, client=self._client, source=self._source)
        self._source.pairs = pairs
        try:
            self._engine.send_weights()  # on rank 0: starts the push, sends the parts, finishes it
        except BaseException:
            if self.rank == 0:
                self._client.abort()
            raise
        finally:
            self._source.pairs = []

    def close(self) -> None:
        if self._engine is not None:
            self._engine.shutdown()
            self._engine = None


class PushClient:
    """What vLLM's trainer-side engines call (`VLLMWeightSyncClient`), as typed steps. They know no versions."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._started = False
        self.version = 0

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._control.push(OpenGroup(init_info))

    def start_weight_update(self) -> None:
        self._started = True  # before the call: some engines may have started when it fails
        self._control.push(StartPush(self.version, PUSH_DEADLINE_S))

    def update_weights(self, update_info: dict[str, Any] | list[dict[str, Any]]) -> None:
        self._control.push(PushPart(self.version, update_info))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._control.push(FinishPush(self.version))
        self._started = False

    def abort(self) -> None:
        """Lets the engines go on. They do so by themselves after PUSH_DEADLINE_S: a failure here is only logged."""
        if not self._started:
            return
        self._started = False
        try:
            self._control.push(AbortPush(self.version))
        except Exception as error:
            logger.warning("the engines could not be told that the push was aborted: %r", error)


def _source(dtype: torch.dtype | None) -> WeightSource:
    from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource

    class PairsSource(WeightSource):
        """vLLM's view of the pairs of one publication: their metadata without gathering, then the tensors."""

        pairs: Sequence[tuple[str, torch.Tensor]] = ()

        def metadata(self) -> list[ParamMeta]:
            return [ParamMeta(name, self._wire(value), tuple(value.shape)) for name, value in self.pairs]

        def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
            return gathered(self.pairs, dtype)

        @staticmethod
        def _wire(value: torch.Tensor) -> torch.dtype:
            return dtype if dtype is not None and value.is_floating_point() else value.dtype

    return PairsSource()
