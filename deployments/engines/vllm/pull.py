"""vLLM weight-transfer backend `rayward_store`: a worker takes up a version that lies in a folder of a WeightStore.

Runs inside vLLM's worker processes. Everything that can be checked is checked before the model is touched, so that a
version that is missing, incomplete or of another model leaves the old weights in use.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)

from deployments.engines.vllm.weights import UNTOUCHED
from deployments.weights.manifest import Manifest, WeightsCorrupt, WeightsError, WeightsMissing, read_manifest

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.config.weight_transfer import WeightTransferConfig


class WeightsMixed(WeightsError):
    """Loading broke off half-way: the worker holds parts of two versions until a complete version is loaded."""


@dataclass
class StoreInitInfo(WeightTransferInitInfo):
    """Nothing to agree upon beforehand: `init_weight_transfer_engine` need not be called."""


@dataclass
class StoreUpdateInfo(WeightTransferUpdateInfo):
    """`folder`: a fetched (hence verified) version on a disk that this worker sees."""

    folder: str
    version: int


class StoreWeightTransferEngine(WeightTransferEngine[StoreInitInfo, StoreUpdateInfo]):
    """`start_weight_update` and `finish_weight_update` only frame the update; `receive_weights` does all of it."""

    init_info_cls = StoreInitInfo
    update_info_cls = StoreUpdateInfo
    supports_draft_weight_update = False

    def __init__(
        self, config: WeightTransferConfig, vllm_config: VllmConfig, device: torch.device, model: torch.nn.Module
    ) -> None:
        super().__init__(config, vllm_config, device, model)
        self._shapes: dict[str, tuple[int, ...]] | None = None  # of the first version: the later ones must agree

    def init_transfer_engine(self, init_info: StoreInitInfo) -> None:
        pass

    def start_weight_update(self) -> None:
        pass

    def finish_weight_update(self) -> None:
        pass

    def shutdown(self) -> None:
        pass

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """As in the base class, which cannot wait for an accelerator where there is none."""
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: StoreUpdateInfo) -> None:
        """Raises WeightsMissing or WeightsCorrupt with the model untouched (their messages end with UNTOUCHED),
        WeightsMixed when it is not."""
        with ExitStack() as opened:
            try:
                manifest, shards = self._open_checked(update_info, opened)
            except WeightsError as error:
                raise type(error)(f"{error} {UNTOUCHED}") from error
            except Exception as error:  # safetensors' and the disk's own: nothing was loaded yet
                raise WeightsCorrupt(f"{update_info.folder} cannot be read: {error!r} {UNTOUCHED}") from error
            self._load((entry.name, shards[entry.shard].get_tensor(entry.name)) for entry in manifest.tensors)
        self._shapes = {entry.name: entry.shape for entry in manifest.tensors}

    def _open_checked(self, wanted: StoreUpdateInfo, opened: ExitStack) -> tuple[Manifest, dict[str, Any]]:
        """The version's manifest and its open shards by name. Everything that can be wrong with them is found here."""
        folder = Path(wanted.folder)
        try:
            manifest = read_manifest(folder)
            # Mapped now: the store may prune the version while it is being read.
            shards = {shard.name: opened.enter_context(_open(folder / shard.name)) for shard in manifest.shards}
        except FileNotFoundError as error:
            raise WeightsMissing(
                f"{error.filename or error} is gone: version {wanted.version} was pruned before the worker opened it; "
                "fetch the latest one, with a cache of the reader's own"
            ) from error
        self._check(manifest, wanted, {name: set(shard.keys()) for name, shard in shards.items()})
        return manifest, shards

    def _check(self, manifest: Manifest, wanted: StoreUpdateInfo, held: dict[str, set[str]]) -> None:
        if manifest.version != wanted.version:
            raise WeightsCorrupt(f"{wanted.folder} holds version {manifest.version}, not {wanted.version}")
        if manifest.kind != "full":
            raise WeightsCorrupt(
                f"version {wanted.version} is an adapter: load it by a LoRARequest(lora_path={wanted.folder!r}), "
                "weight transfer takes full models"
            )
        for entry in manifest.tensors:
            if entry.name not in held[entry.shard]:
                raise WeightsCorrupt(f"tensor {entry.name!r} is not in {wanted.folder}/{entry.shard}")
        shapes = {entry.name: entry.shape for entry in manifest.tensors}
        if self._shapes is None:
            self._shapes = _checkpoint_shapes(Path(self.model_config.model))
        if self._shapes is not None and shapes != self._shapes:
            tied = getattr(self.model_config.hf_config.get_text_config(), "tie_word_embeddings", False)
            differing = {n for n in shapes.keys() | self._shapes.keys() if shapes.get(n) != self._shapes.get(n)}
            if not (tied and differing <= {"lm_head.weight"}):
                raise WeightsCorrupt(
                    f"version {wanted.version} is not of the model that was loaded: {_some(differing)} "
                    f"differ(s) from the earlier weights; publish the whole model under its Hugging Face names"
                )

    def _load(self, tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
        from vllm.model_executor.model_loader.mtp_validation import disable_mtp_completeness_check
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

        expected = {name.replace(".base_layer.", ".") for name, _ in self.model.named_parameters()}
        try:
            with torch.no_grad():
                initialize_layerwise_reload(self.model)
                try:
                    with disable_mtp_completeness_check():
                        loaded = self.model.load_weights(tensors)
                finally:  # also after a failure: it puts the layers that got nothing back in place
                    finalize_layerwise_reload(self.model, self.model_config)
                if self.device.type == "cpu":
                    repack_tied_heads(self.model)
        except Exception as error:
            raise WeightsMixed(
                f"vLLM broke off while loading ({error!r}): the worker holds parts of two versions; load a complete "
                "version, or restart the replica"
            ) from error
        missing = expected - loaded if loaded is not None and self.model_config.quantization is None else set()
        if missing:
            raise WeightsMixed(f"the version lacks {_some(missing)}: publish the whole model, or restart the replica")


def repack_tied_heads(model: torch.nn.Module) -> int:
    """Packs tied output heads again, and returns how many.

    vLLM's CPU build multiplies by a packed copy of a weight, made when its layer has been loaded. A tied `lm_head` is
    a layer of its own that shares the embedding's parameter; a reload brings weights to the embedding only, so the
    head is not processed again and keeps sampling from the packed copy of the old weights.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    owners: dict[int, int] = {}
    heads = [module for module in model.modules() if isinstance(module, ParallelLMHead)]
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    tied = [head for head in heads if hasattr(head, "cpu_linear") and owners.get(id(getattr(head, "weight", 0)), 0) > 1]
    for head in tied:
        head.quant_method.process_weights_after_loading(head)
    return len(tied)


def _open(path: Path) -> Any:
    from safetensors import safe_open

    return safe_open(path, framework="pt", device="cpu")


def _checkpoint_shapes(folder: Path) -> dict[str, tuple[int, ...]] | None:
    """Names and shapes of the model vLLM started from; None where they cannot be read (a hub name, another format)."""
    paths = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    shapes: dict[str, tuple[int, ...]] = {}
    for path in paths:
        with _open(path) as shard:
            shapes |= {name: tuple(shard.get_slice(name).get_shape()) for name in shard.keys()}  # noqa: SIM118
    return shapes or None


def _some(names: set[str], most: int = 5) -> str:
    shown = sorted(names)[:most]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")
