"""From publish until every replica answers with the new version: `python -m benchmarks.weight_sync [--check]`.

Two replicas and the tiny model, then bigger random models for the time per 100 MB.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import Figure, options, report
from benchmarks.engines import tiny_model
from configs.models import TinyModel
from configs.rollouts import EnvConfig
from configs.training import TrainConfig
from deployments.protocol.generate import GenerateRequest, Sampling
from deployments.weights.store import WeightStore
from training.cluster import application, ray_session
from training.imitation import tiny

REPLICAS = 2
# hidden size, layers, width of the MLP: about 100, 250 and 500 MB in float32
SIZES = {"100 MB": (512, 8, 1792), "250 MB": (768, 9, 2560), "500 MB": (1024, 10, 3456)}


def tensors_of(model: Path) -> list[tuple[str, Any]]:
    from safetensors.torch import load_file

    return [item for file in sorted(model.glob("*.safetensors")) for item in load_file(file).items()]


async def answered(handle: Any, version: int) -> set[int]:
    """Asks all replicas for an answer by `version` or newer; returns the versions that answered."""
    request = GenerateRequest(f"sync-{version}", [20, 21, 22], Sampling(max_tokens=1), min_weight_version=version)
    batches = await handle.broadcast("generate", [request]).results_async(timeout_s=60)
    assert len(batches) == REPLICAS, f"{len(batches)} replicas answered"
    return {answer.weight_version for batch in batches for answer in batch}


def synchronisations(model: Path, root: str, rounds: int) -> Iterator[tuple[float, float]]:
    """(publish, publish until all have answered), seconds, one a round; the first round is not counted."""
    from ray import serve

    config = TrainConfig.parse(
        {"serving": {"engine": {"max_model_len": 64, "max_num_seqs": 16}, "replicas": replicas()}}
    )
    serve_config = application.serve_config(config, str(model), root)
    store, tensors = WeightStore(root, keep=2), tensors_of(model)
    with application.application(serve_config):
        handle = serve.get_deployment_handle("policy", serve_config.name)

        async def play() -> list[tuple[float, float]]:
            seconds = []
            for version in range(1, rounds + 2):
                began = time.perf_counter()
                await asyncio.to_thread(store.publish, version, iter(tensors))
                published = time.perf_counter()
                versions = await answered(handle, version)
                seconds.append((published - began, time.perf_counter() - began))
                assert versions == {version}, f"asked for {version}, got {versions}"
            return seconds[1:]

        yield from asyncio.run(play())


def replicas() -> dict[str, Any]:
    return {"min_replicas": REPLICAS, "max_replicas": REPLICAS, "drain_s": 2}


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    figures = []
    with tempfile.TemporaryDirectory() as scratch, ray_session.ray_session():
        with tempfile.TemporaryDirectory(prefix="rayward-weights-", dir="/dev/shm") as root:
            model = tiny_model(Path(scratch) / "tiny", max_positions=256)
            seconds = list(synchronisations(model, root, chosen.rounds))
            total = statistics.median(done for _, done in seconds)
            figures.append(Figure("tiny model, publish", 1e3 * statistics.median(p for p, _ in seconds), "ms"))
            figures.append(Figure("tiny model, until all answer", 1e3 * total, "ms", 100.0, lower_is_better=True))
        for name, (hidden, layers, width) in SIZES.items():
            with tempfile.TemporaryDirectory(prefix="rayward-weights-", dir="/dev/shm") as root:
                shape = TinyModel(
                    hidden_size=hidden, layers=layers, intermediate_size=width, heads=8, kv_heads=8, max_positions=256
                )
                model = tiny.build(shape, EnvConfig(), 0, Path(scratch) / name)
                megabytes = sum(tensor.numel() * tensor.element_size() for _, tensor in tensors_of(model)) / 1e6
                seconds = list(synchronisations(model, root, 5))
                total = statistics.median(done for _, done in seconds)
                figures.append(Figure(f"{megabytes:.0f} MB, until all answer", 1e3 * total, "ms"))
                figures.append(Figure(f"{megabytes:.0f} MB, per 100 MB", 1e5 * total / megabytes, "ms"))
    report("weight_sync", figures, chosen)


if __name__ == "__main__":
    main()
