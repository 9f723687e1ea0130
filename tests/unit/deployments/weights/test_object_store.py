"""The store in Ray's object store keeps the promises of the store in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from deployments.weights.manifest import VersionOrder, WeightsMissing

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    import ray

    if ray.is_initialized():  # by the integration tests of the same session
        yield
        return
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 * 1024**2, namespace="test")
    yield
    ray.shutdown()


def test_versions_travel_through_rays_object_store_and_outlive_their_publisher(cluster: None, tmp_path: Path) -> None:
    import ray

    from deployments.weights.object_store import RayWeightStore

    store = RayWeightStore("test", keep=2)
    assert store.latest() is None

    @ray.remote(num_cpus=1)
    class Learner:
        def publish(self, version: int) -> None:
            RayWeightStore("test", keep=2).publish(version, [("w", torch.full((1000, 300), float(version)))])

    learner = Learner.remote()  # type: ignore[attr-defined]
    for version in (1, 2, 3):
        ray.get(learner.publish.remote(version))
    ray.kill(learner)
    assert store.versions() == [2, 3]
    fetched = store.fetch_at_least(3, 10.0, tmp_path / "cache")
    tensor = load_file(fetched.folder / fetched.manifest.shards[0].name)["w"]
    assert torch.equal(tensor, torch.full((1000, 300), 3.0))
    with pytest.raises(WeightsMissing, match=r"there: \[2, 3\]"):
        store.fetch(1, tmp_path / "cache")
    with pytest.raises(VersionOrder):
        store.publish(3, [("w", torch.ones(1))])
    store.destroy()
