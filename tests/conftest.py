"""Hypothesis without deadlines, markers by folder, a skip of GPU tests without a GPU, a wheel for two folders."""

from pathlib import Path

import pytest
from hypothesis import settings

from tests.packaging.environments import base_install, installed, wheel

__all__ = ["base_install", "installed", "wheel"]  # fixtures

settings.register_profile("rayward", deadline=None)  # a busy machine makes no property false
settings.load_profile("rayward")

MARKED_FOLDERS = ("integration", "packaging", "gpu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in MARKED_FOLDERS:
            item.add_marker(folder)
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_items and not _cuda_is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="torch sees no CUDA device"))


def _cuda_is_available() -> bool:
    import torch  # only here: unit tests must not wait for it

    return torch.cuda.is_available()
