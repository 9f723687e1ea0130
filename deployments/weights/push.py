"""Weight versions pushed into running engines: NCCL broadcast or CUDA IPC, through vLLM's weight-sync calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from vllm.distributed.weight_transfer.base import TrainerWeightTransferEngine, WeightSource
from deployments.weights.publishers import gathered


class Control(Protocol):
    """vLLM's four weight-sync calls (`VLLMWeightSyncClient`) of one engine, and the pause around them. Synchronous."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None: ...

    def start_weight_update(self) -> None: ...

    def update_weights(self, update_info: dict[str, Any] | list[dict[str, Any]]) -> None: ...

    def finish_weight_update(self, weight_version: str | None = None) -> None: ...


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

    def _all(self, call: str, argument: Any = None) -> None:
        self._handle.broadcast("push", call, argument).results(timeout_s=self._timeout_s)

    def pause(self) -> None:
        self._all("pause")

    def resume(self) -> None:
        self._all("resume")

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._all("init", init_info)

    def start_weight_update(self) -> None:
        self._all("start")

    def update_weights(self, update_info: dict[str, Any] | list[dict[str, Any]]) -> None:
        self._all("update", update_info)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._all("finish", weight_version)


class LlmControl:
    """An offline `vllm.LLM` in this process. It generates only when called: there is nothing to pause."""

    def __init__(self, llm: Any) -> None:
        self._llm = llm

    def pause(self) -> None:
        self._llm.reset_prefix_cache()

    def resume(self) -> None:
        pass

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._llm.init_weight_transfer_engine({"init_info": init_info})

    def start_weight_update(self) -> None:
        self._llm.start_weight_update()

    def update_weights(self, update_info: dict[str, Any] | list[dict[str, Any]]) -> None:
        self._llm.update_weights({"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._llm.finish_weight_update(weight_version)


class _Sender:
    """One of vLLM's trainer-side engines, opened at the first publication; carries the version to `finish`."""

    def __init__(self, control: Control, rank: int, dtype: torch.dtype | None) -> None:
        self.rank = rank
        self._control, self._dtype = control, dtype
        self._client = _VersionedClient(control)
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
        if self.rank == 0:
            self._control.pause()
        try:
            self._engine.send_weights()
        finally:
            self._source.pairs = []
            if self.rank == 0:
                self._control.resume()

    def close(self) -> None:
        if self._engine is not None:
            self._engine.shutdown()
            self._engine = None


class _VersionedClient:
    """vLLM's trainer engines finish an update without naming its version: this one names it."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self.version = 0

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._control.init_weight_transfer_engine(init_info)

    def start_weight_update(self) -> None:
        self._control.start_weight_update()

    def update_weights(self, update_info: dict[str, Any] | list[dict[str, Any]]) -> None:
        self._control.update_weights(update_info)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._control.finish_weight_update(weight_version or str(self.version))


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
