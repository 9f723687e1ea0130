"""One Ray and one Serve application with one real vLLM replica for all integration tests: engines are slow to start."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from configs.training import TrainConfig

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "model": {"tiny": {"intermediate_size": 128, "max_positions": 256}},
    "env": {"name": "tests.integration.odd_envs:Checksum", "history": "none", "system_prompt": ""},
    "sampling": {"max_tokens": 6},
    "rollout": {"groups_per_step": 4, "group_size": 4, "request_deadline_s": 20.0, "max_retries": 30},
    "optimizer": {"lr": 1e-3},
    "serving": {
        # small blocks: prompts of these lengths share whole ones, which the prefix cache then holds
        "engine": {"dtype": "float32", "max_model_len": 256, "max_num_seqs": 32, "extra": {"block_size": 32}},
        "replicas": {"health_period_s": 1.0, "drain_s": 2.0, "no_progress_s": 20.0},
    },
    "evaluation": {"episodes": 16},
    "checkpoint": {"every_steps": 1, "keep": 10},
    "tracking": {"prometheus": False, "episodes_every_steps": 2},
}


def tiny_config(storage: Path, *overrides: str) -> TrainConfig:
    return TrainConfig.parse({**TINY, "storage_path": str(storage)}, overrides)


@dataclass(frozen=True)
class Stack:
    """The running application and how to open a run on it."""

    session: Any
    storage: Path
    http: str
    open_run: Callable[..., Any]
    close_runs: Callable[[], None]

    def replica_actors(self) -> list[Any]:
        import ray

        found = ray.util.list_named_actors(all_namespaces=True)
        return [
            ray.get_actor(actor["name"], namespace=actor["namespace"])
            for actor in found
            if actor["name"].startswith("SERVE_REPLICA::rayward#policy#")
        ]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    from deployments.storage import runs
    from training.cluster import ports
    from training.imitation import tiny
    from training.rollouts.session import Session, join_session, open_session

    storage = tmp_path_factory.mktemp("storage")
    port = ports.free_port()
    config = tiny_config(storage, f"serving.http_port={port}", "env.name=tictactoe")
    run = runs.create(config)
    model = tiny.build(config.model.tiny, config.env, 0, run.path / "models" / "init")
    with open_session(config, run, model) as session:

        def open_run(run_config: TrainConfig, folder: runs.RunFolder | None = None) -> Session:
            """A run with a coordinator of its own on the same replicas and weight store, until the test's end."""
            folder = folder or runs.create(run_config)
            return opened.enter_context(join_session(run_config, folder, model, session.weights_root))

        with ExitStack() as opened:
            yield Stack(session, storage, f"http://127.0.0.1:{port}", open_run, lambda: opened.pop_all().close())


@pytest.fixture(autouse=True)
def _runs_end_with_their_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Their workers would take memory and time from the tests that follow."""
    yield
    if "stack" in request.fixturenames:
        request.getfixturevalue("stack").close_runs()
