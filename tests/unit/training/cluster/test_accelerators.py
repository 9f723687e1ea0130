"""Types of GPU are the resources that Ray gives to nodes."""

from __future__ import annotations

import pytest
from ray.util.accelerators import accelerators as of_ray

from configs.base import ConfigError
from training.cluster import accelerators

GIB = 1024**3


@pytest.mark.parametrize(
    ("given", "ray_name"),
    [
        ("T4", of_ray.NVIDIA_TESLA_T4),
        ("A10G", of_ray.NVIDIA_TESLA_A10G),
        ("A100", of_ray.NVIDIA_A100),
        ("A100-40GB", of_ray.NVIDIA_A100_40G),
        ("A100-80GB", of_ray.NVIDIA_A100_80G),
        ("H100", of_ray.NVIDIA_H100),
        ("a100-80gb", of_ray.NVIDIA_A100_80G),
    ],
)
def test_a_type_is_named_as_ray_names_it(given: str, ray_name: str) -> None:
    from ray._common.utils import RESOURCE_CONSTRAINT_PREFIX

    assert accelerators.resource(given) == f"{RESOURCE_CONSTRAINT_PREFIX}{ray_name}"


def test_an_unknown_type_says_which_there_are() -> None:
    with pytest.raises(ConfigError, match="take one of T4, A10G, A100, A100-40GB, A100-80GB, H100"):
        accelerators.resource("A100-60GB")


@pytest.mark.parametrize(
    ("name", "gib", "expected"),
    [
        ("NVIDIA A100-SXM4-40GB", 39.4, {"accelerator_type:A100-40G": 1.0}),  # the driver keeps a part
        ("NVIDIA A100 80GB PCIe", 79.2, {"accelerator_type:A100-80G": 1.0}),
        ("NVIDIA H100 80GB HBM3", 79.6, {}),
        ("Tesla T4", 15, {}),
    ],
)
def test_only_the_size_of_an_a100_is_added_to_what_ray_finds(name: str, gib: float, expected: dict[str, float]) -> None:
    assert accelerators.sized(name, int(gib * GIB)) == expected


def test_ray_itself_finds_the_type_but_not_the_size() -> None:
    """Why `sized` is there; once Ray tells the size, it can go."""
    from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager as Manager

    assert Manager._gpu_name_to_accelerator_type("NVIDIA A100-SXM4-40GB") == of_ray.NVIDIA_A100
    assert "start such nodes" in accelerators.note("A100-40GB")
    assert accelerators.note("A100") == accelerators.note("H100") == ""


def test_a_machine_without_a_driver_has_no_such_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray._private.thirdparty.pynvml as nvml

    def no_driver() -> None:
        raise nvml.NVMLError(nvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(nvml, "nvmlInit", no_driver)
    assert accelerators.of_this_machine() == {}


def test_a_machine_with_an_a100_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray._private.thirdparty.pynvml as nvml

    class Memory:
        total = 40 * GIB

    for name, answer in {
        "nvmlInit": None, "nvmlShutdown": None, "nvmlDeviceGetCount": 1, "nvmlDeviceGetHandleByIndex": 0,
        "nvmlDeviceGetName": b"NVIDIA A100-PCIE-40GB", "nvmlDeviceGetMemoryInfo": Memory,
    }.items():  # fmt: skip
        monkeypatch.setattr(nvml, name, lambda *_, answer=answer: answer)
    assert accelerators.of_this_machine() == {"accelerator_type:A100-40G": 1.0}
