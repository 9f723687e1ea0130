"""vLLM weight-transfer backends `rayward_nccl` and `rayward_ipc`: the learner pushes, and a worker can pull as well.

vLLM's own push backends know one way only. A replica that joined after the group was made, was restarted or missed a
push has to get the version from the store: an update that names a folder is a pull, any other is a push.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferEngine
from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine

from deployments.engines.vllm.pull import StoreWeightTransferEngine

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.config.weight_transfer import WeightTransferConfig


class _PushedOrPulled:
    """Before one of vLLM's push engines in the order of bases. vLLM announces an update before it says of what kind."""

    def __init__(
        self, config: WeightTransferConfig, vllm_config: VllmConfig, device: torch.device, model: torch.nn.Module
    ) -> None:
        super().__init__(config, vllm_config, device, model)  # type: ignore[call-arg]
        self._store = StoreWeightTransferEngine(config, vllm_config, device, model)
        self._pushing = False

    def start_weight_update(self) -> None:
        pass  # a pull frames itself; a push is framed at its first part

    def update_weights(self, update_info: dict[str, Any]) -> None:
        if "folder" in update_info:
            self._store.update_weights(update_info)
            return
        if not self._pushing:
            super().start_weight_update()  # type: ignore[misc]
            self._pushing = True
        super().update_weights(update_info)  # type: ignore[misc]

    def finish_weight_update(self) -> None:
        if self._pushing:
            self._pushing = False
            super().finish_weight_update()  # type: ignore[misc]


class NcclOrStore(_PushedOrPulled, NCCLWeightTransferEngine):
    """Backend `rayward_nccl`."""


class IpcOrStore(_PushedOrPulled, IPCWeightTransferEngine):
    """Backend `rayward_ipc`."""
