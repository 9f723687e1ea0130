"""vLLM plugin (entry point group `vllm.general_plugins`): rayward's weight-transfer backends.

vLLM calls `register` in each of its processes, maybe more than once. A backend's own module is imported only when an
engine with it (`weight_transfer_config={"backend": "rayward_store"}`) is built.
"""

from __future__ import annotations

BACKENDS = {
    "rayward_store": ("deployments.engines.vllm.pull", "StoreWeightTransferEngine"),
    "rayward_nccl": ("deployments.engines.vllm.push", "NcclOrStore"),
    "rayward_ipc": ("deployments.engines.vllm.push", "IpcOrStore"),
}


def register() -> None:
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    for backend, (module, name) in BACKENDS.items():
        if backend not in WeightTransferEngineFactory._registry:
            WeightTransferEngineFactory.register_engine(backend, module, name)
