"""vLLM plugin (entry point group `vllm.general_plugins`): makes the weight-transfer backend `rayward_store` known.

vLLM calls `register` in each of its processes, maybe more than once. The engine's own module is imported only when an
engine with `weight_transfer_config={"backend": "rayward_store"}` is built.
"""

from __future__ import annotations

BACKEND = "rayward_store"


def register() -> None:
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(BACKEND, "deployments.vllm_transfer", "StoreWeightTransferEngine")
