"""A second application beside the session's: a tiny Qwen2-VL that drives a robot arm and plays MineRL."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.integration.contracts.robots import RobotServer, robot_server

ARM = {"max_tokens": 640, "temperature": 0.0}  # a token is a byte
VISION = {
    "name": "vision",
    "model": "tiny:vision",
    "engine": {"device": "cpu", "max_model_len": 8192, "max_num_seqs": 8, "cpu_kv_cache_gib": 0.25},
    "replicas": {"drain_s": 2.0, "num_cpus": 0.5},
    "act": {"arm": ARM, "game": {}},
}


@pytest.fixture(scope="package")
def vision(stack: Any) -> Iterator[httpx.Client]:
    """A client of the application, which lies at /vision of the session's Serve."""
    from configs.serving import ServeConfig
    from training.cluster.application import application

    config = ServeConfig.parse(
        {
            "name": "vision",
            "http": {"root_path": "/vision", "port": 0},
            "policies": [VISION],
            "storage_path": str(stack.storage),
        }
    )
    with application(config), httpx.Client(base_url=f"{stack.http}/vision", timeout=120) as client:
        yield client


@pytest.fixture(scope="session")
def frame() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """[H, W, 3]: not square, so that height and width cannot be exchanged unnoticed."""
    return np.random.default_rng(0).integers(0, 256, (56, 84, 3), np.uint8)


@pytest.fixture(scope="session")
def png(frame: np.ndarray[Any, np.dtype[np.uint8]]) -> str:
    """The frame as base64 of a PNG."""
    written = io.BytesIO()
    Image.fromarray(frame).save(written, "PNG")
    return base64.b64encode(written.getvalue()).decode()


@pytest.fixture(scope="package")
def robots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RobotServer]:
    """An application of its own: Serve has a gRPC server only where it was started with one."""
    with robot_server(tmp_path_factory.mktemp("robots")) as server:
        yield server
