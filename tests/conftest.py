"""Hypothesis without deadlines, markers by folder, a skip of GPU tests without a GPU, a wheel for two folders, and what
runs side by side: tests that share something expensive stay in one process (`--dist loadgroup`)."""

from pathlib import Path

import pytest
from hypothesis import settings

from tests.packaging.environments import base_install, installed, wheel

__all__ = ["base_install", "installed", "wheel"]  # fixtures

settings.register_profile("rayward", deadline=None)  # a busy machine makes no property false
settings.load_profile("rayward")

TESTS = Path(__file__).parent
MARKED_FOLDERS = ("integration", "packaging", "gpu")
SHARED = ("stack", "robots", "wheel")  # fixtures that are expensive, the most expensive first


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in MARKED_FOLDERS:
            item.add_marker(folder)
        item.add_marker(pytest.mark.xdist_group(group_of(item)))
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_items and not _cuda_is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="torch sees no CUDA device"))


def group_of(item: pytest.Item) -> str:
    """Tests of one group run in one process, one after the other."""
    fixtures = getattr(item, "fixturenames", ())
    shared = next((name for name in SHARED if name in fixtures), None)
    return shared or str(item.path.relative_to(TESTS))


def _cuda_is_available() -> bool:
    import torch  # only here: unit tests must not wait for it

    return torch.cuda.is_available()
