"""Types of GPU as Ray's resources.

Ray gives a node with such GPUs the resource `accelerator_type:NAME`, 1 of it, whatever their number: who asks for a
thousandth of it is placed on such a node. Of an A100 it does not tell the size, which a Ray that is started here does.
"""

from __future__ import annotations

from configs.base import ConfigError

PREFIX = "accelerator_type:"
SHARE = 0.001  # as Ray's own option `accelerator_type` asks for it
# As clouds name a type -> as Ray does (ray.util.accelerators).
RAY_NAMES = {
    "T4": "T4",
    "A10G": "A10G",
    "A100": "A100",
    "A100-40GB": "A100-40G",
    "A100-80GB": "A100-80G",
    "H100": "H100",
}
SIZED = {40: "A100-40G", 80: "A100-80G"}  # GiB -> Ray's name, which it gives no node by itself


def resource(gpu_type: str) -> str:
    """Ray's resource of a type of GPU. Raises ConfigError for a type that is not known.

    >>> resource("a100-40gb")
    'accelerator_type:A100-40G'
    """
    name = RAY_NAMES.get(gpu_type.upper())
    if name is None:
        raise ConfigError(
            f"there is no GPU type {gpu_type!r}: take one of {', '.join(RAY_NAMES)}; for others set "
            f"learner.resources and serving.replicas.resources to {{'{PREFIX}NAME': {SHARE}}}, by Ray's name"
        )
    return PREFIX + name


def note(gpu_type: str) -> str:
    """What must be known to use a type on a cluster; empty for most."""
    name = resource(gpu_type)
    if name.removeprefix(PREFIX) not in SIZED.values():
        return ""
    return (
        f"Ray does not tell an A100's size by itself: on a cluster start such nodes with --resources="
        f"'{{\"{name}\": 1}}', or take --gpu-type A100"
    )


def sized(name: str, memory_bytes: int) -> dict[str, float]:
    """The resource that Ray leaves out, of a node with such GPUs.

    >>> sized("NVIDIA A100-SXM4-40GB", 42_949_672_960)
    {'accelerator_type:A100-40G': 1.0}
    """
    if "A100" not in name:
        return {}
    size = min(SIZED, key=lambda gib: abs(memory_bytes / 1024**3 - gib))
    return {PREFIX + SIZED[size]: 1.0}


def of_this_machine() -> dict[str, float]:
    """`sized` of this machine's first GPU; empty where there is none, or no driver."""
    import ray._private.thirdparty.pynvml as nvml  # the copy that Ray itself asks

    try:
        nvml.nvmlInit()
        try:
            if nvml.nvmlDeviceGetCount() == 0:
                return {}
            gpu = nvml.nvmlDeviceGetHandleByIndex(0)
            name = nvml.nvmlDeviceGetName(gpu)
            text = name.decode() if isinstance(name, bytes) else str(name)
            return sized(text, int(nvml.nvmlDeviceGetMemoryInfo(gpu).total))
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError:
        return {}
