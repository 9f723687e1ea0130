"""torchvision of the package registry beside PyTorch's CPU build: made importable, for the image processors.

Its compiled part needs CUDA's libraries, and without them its import ends with «operator torchvision::nms does not
exist», in every process that imports transformers. Its transforms are plain Python and need only that two operators
have a schema. PyTorch's own CPU wheel of torchvision needs none of this.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[Any] = []  # a library's definitions end with it


def register() -> None:
    """PyTorch calls this at the end of its own import, in every process (entry point group `torch.backends`)."""
    import torch

    if _libraries or not needed(torch.__version__, _installed("torchvision")):
        return
    library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        library.define(schema)
    _libraries.append(library)


def needed(torch_version: str, torchvision_version: str | None) -> bool:
    """Whether torchvision was built for another torch than the one that is here.

    >>> needed("2.13.0+cpu", "0.28.0"), needed("2.13.0+cpu", "0.28.0+cpu"), needed("2.13.0+cu130", "0.28.0")
    (True, False, False)
    """
    cpu = "+cpu"
    return torchvision_version is not None and torch_version.endswith(cpu) and not torchvision_version.endswith(cpu)


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
