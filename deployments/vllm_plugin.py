"""vLLM plugin (entry point group `vllm.general_plugins`): rayward's weight-transfer backends, and engines that leave
the cores to others while they wait.

vLLM calls `register` in each of its processes, maybe more than once. A backend's own module is imported only when an
engine with it (`weight_transfer_config={"backend": "rayward_store"}`) is built.
"""

from __future__ import annotations

import os

BACKENDS = {
    "rayward_store": ("deployments.vllm_transfer", "StoreWeightTransferEngine"),
    "rayward_nccl": ("deployments.vllm_transfer_push", "NcclOrStore"),
    "rayward_ipc": ("deployments.vllm_transfer_push", "IpcOrStore"),
}
BUSY_LOOP_S = "RAYWARD_ENGINE_BUSY_LOOP_S"


def register() -> None:
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    for backend, (module, name) in BACKENDS.items():
        if backend not in WeightTransferEngineFactory._registry:
            WeightTransferEngineFactory.register_engine(backend, module, name)

    _wait_without_spinning()


def _wait_without_spinning() -> None:
    """vLLM's processes spin on their queues for a second after each message. Where engine, environments and learner
    share a few cores, that time belongs to the others: sleep after `BUSY_LOOP_S` seconds instead (a replica on a CPU
    sets it; elsewhere vLLM's own second stays)."""
    seconds = os.environ.get(BUSY_LOOP_S)
    if seconds is None:
        return
    from vllm.distributed.device_communicators.shm_broadcast import SpinCondition

    defaults = SpinCondition.__init__.__defaults__
    if defaults is None or len(defaults) != 1:
        raise RuntimeError("vLLM's SpinCondition has changed: it no longer has busy_loop_s as its only default")
    SpinCondition.__init__.__defaults__ = (float(seconds),)
