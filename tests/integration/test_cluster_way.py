"""The commands of docs/cluster.md on a real cluster: `serve run`, `ray job submit`, a sweep.

One head of its own, as child processes with own ports and folders: nothing here touches the Ray of the other tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.integration.conftest import ROOT, TINY, tiny_config
from tests.integration.processes import MARK, Process, marked, wait_until
from training.cluster.ports import free_port
from training.cluster.ray_session import process_settings
from training.imitation import tiny

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]

SERVING_PROCESSES = ("ServeController", "ServeReplica", "ProxyActor", "haproxy", "VLLM::")
BIN = Path(sys.executable).parent
ENVIRONMENT = "from tests.integration.odd_envs import Checksum\n\n\nclass Shipped(Checksum):\n    pass\n"


@dataclass(frozen=True)
class Cluster:
    """A running head, and the project folder that commands are run from."""

    project: Path
    env: dict[str, str]
    mark: str = field(repr=False)

    def run(self, *command: str, deadline_s: float) -> str:
        """Runs a command to its end; returns what it printed. AssertionError when it fails."""
        done = subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            env=self.env,
            cwd=self.project,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=deadline_s,
        )
        assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}"
        return done.stdout

    def start(self, *command: str) -> Process:
        return Process([str(BIN / command[0]), *command[1:]], self.env, self.project)

    def processes(self) -> list[psutil.Process]:
        return marked(self.mark)

    def serving_processes(self) -> list[str]:
        lines = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                lines.append(" ".join(process.cmdline()))
        return [line for line in lines if any(name in line for name in SERVING_PROCESSES)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user of the cluster has: configurations, a model, and an environment that only this folder knows."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "shipped_env.py").write_text(ENVIRONMENT)
    config = tiny_config(folder, "env.name=tictactoe")
    model = tiny.build(config.model.tiny, config.env, 0, folder.parent / "cluster_model")
    serving: dict[str, Any] = TINY["serving"]  # type: ignore[assignment]
    policy = {"name": "policy", "model": str(model), "weights_root": str(folder.parent / "cluster_weights"), **serving}
    train = {**TINY, "steps": 2, "storage_path": str(folder.parent / "cluster_runs")}
    joined = {
        **train,
        "name": "joined",
        "env": {"name": "shipped_env:Shipped", "system_prompt": ""},
        "model": {**train["model"], "source": str(model)},  # type: ignore[dict-item]
        "serving": {**serving, "connect": "rayward"},
        "weights": {"root": policy["weights_root"]},
    }
    sweep = {
        "name": "two",
        "train": str(folder / "train.yaml"),
        "settings": {"steps": 4},
        "space": {"model.source": {"grid": [str(model), "/no/such/model"]}},
        "trials": 1,
        "concurrency": 2,
        "report_every_steps": 2,
        "grace_steps": 2,
        "reduction_factor": 2,
    }
    documents = {"serve": {"policies": [policy]}, "train": train, "joined": joined, "sweep": sweep}
    for name, document in documents.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(document))
    return folder


@pytest.fixture(scope="module")
def cluster(project: Path) -> Iterator[Cluster]:
    temp = Path(tempfile.mkdtemp(prefix="ray-"))  # short: the path of a Unix socket has at most 107 bytes
    running, head = start_head(project, temp)
    try:
        yield running
    finally:
        head.end(signal.SIGTERM, deadline_s=60)
        _, alive = psutil.wait_procs(running.processes(), timeout=20)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=20)
        shutil.rmtree(temp, ignore_errors=True)
    assert not alive, f"the end of the head left processes behind: {alive}"


def start_head(project: Path, temp: Path) -> tuple[Cluster, Process]:
    """A head that answers. Its ports were free when they were asked for; where another process took one meanwhile, the
    head does not come up, and is started again with others."""
    for attempt in range(3):
        folder = temp / str(attempt)
        (folder / "haproxy").mkdir(parents=True)
        dashboard = free_port()
        running = Cluster(project, cluster_environment(folder, dashboard), mark=temp.name)
        head = running.start(
            "ray", "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=8",
            "--port=0", f"--dashboard-port={dashboard}", "--include-dashboard=true", "--min-worker-port=0",
            "--max-worker-port=0", f"--ray-client-server-port={free_port()}", f"--metrics-export-port={free_port()}",
            f"--dashboard-agent-listen-port={free_port()}", f"--object-store-memory={256 * 1024 * 1024}",
        )  # fmt: skip
        try:
            head.wait_for("This command will now block forever", deadline_s=90)
        except AssertionError:
            head.end(signal.SIGTERM, deadline_s=60)
            if attempt == 2:
                raise
        else:
            running.env["RAY_ADDRESS"] = (folder / "ray" / "ray_current_cluster").read_text().strip()
            return running, head
    raise AssertionError("unreachable")


def cluster_environment(temp: Path, dashboard: int) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTEST_"))}
    return {
        **ours,
        **process_settings(temp / "haproxy", {}),
        "RAY_TMPDIR": str(temp),  # below it, this cluster's address is written and looked up
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
        # Otherwise `ray start` asks for a token where one lies in the home folder; with RAY_ADDRESS, nobody sends it.
        "RAY_AUTH_MODE": "disabled",
        "PYTHONPATH": str(ROOT),
        MARK: temp.parent.name,
    }


@dataclass(frozen=True)
class Served:
    process: Process
    http: str


@pytest.fixture(scope="module")
def served(cluster: Cluster) -> Iterator[Served]:
    """`serve run`, ready. Its HTTP port is that of `serve start`."""
    port = free_port()
    cluster.run("serve", "start", f"--http-port={port}", "--proxy-location=HeadOnly", deadline_s=60)
    with cluster.start("serve", "run", "--name=rayward", "deployments.app:build", "config=serve.yaml") as process:
        process.wait_for("Application 'rayward' is ready", deadline_s=240)
        yield Served(process, f"http://127.0.0.1:{port}")


def test_serve_run_answers_health_and_a_completion(served: Served) -> None:
    with httpx.Client(base_url=served.http, timeout=60) as http:
        health = http.get("/health")
        answer = http.post("/v1/completions", json={"model": "policy", "prompt": "You play", "max_tokens": 4})

    assert (health.status_code, health.json()["ready"]) == (200, True)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] > 0


def test_a_submitted_job_trains_on_the_served_policy_with_code_of_its_working_dir(
    cluster: Cluster, served: Served
) -> None:
    name = f"train-{uuid.uuid4().hex[:8]}"
    printed = cluster.run(
        "ray", "job", "submit", f"--submission-id={name}", "--working-dir", ".", "--",
        sys.executable, "-m", "training.grpo", "--config", "joined.yaml", deadline_s=240,
    )  # fmt: skip

    assert f"Job '{name}' succeeded" in printed
    (run,) = (cluster.project.parent / "cluster_runs" / "runs" / "default" / "default").glob("joined-*")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1]
    assert all(row["train/episodes"] > 0 for row in rows), "no gradient: the run trained nothing"
    assert httpx.get(f"{served.http}/health").json()["policies"]["policy"]["weight_version"] > 0


def test_serve_run_ends_on_ctrl_c_and_leaves_no_process(cluster: Cluster, served: Served) -> None:
    assert cluster.serving_processes(), "nothing is served: the test says nothing"

    assert served.process.end(signal.SIGINT, deadline_s=90) == 0

    wait_until(lambda: not cluster.serving_processes(), 30, lambda: f"still there: {cluster.serving_processes()}")


def test_a_sweep_is_killed_and_resumed_names_the_best_and_outlives_those_that_fail(cluster: Cluster) -> None:
    with cluster.start("python", "-m", "training.tune", "--config", "sweep.yaml") as killed:
        killed.wait_for("  step 2  eval/success", deadline_s=240)
        killed.end(signal.SIGKILL, deadline_s=10)
    (file,) = cluster.project.parent.glob("cluster_runs/runs/*/*/two-*/results.json")
    (first, *_) = json.loads(file.read_text())["trials"]
    assert first["step"] == 2
    runs = {path.name for path in file.parent.parent.glob("two-*-0000?-*")}

    printed = cluster.run("rayward", "sweep", "--resume", str(file.parent), deadline_s=400)

    assert f"sweep folder {file.parent}, resumed" in printed
    trained, failed = json.loads(file.read_text())["trials"]
    assert [trained[name] for name in ("trial", "run", "values")] == [
        first[name] for name in ("trial", "run", "values")
    ]
    assert runs <= {path.name for path in file.parent.parent.glob("two-*-0000?-*")}
    assert len({path.name.rsplit("-", 3)[0] for path in file.parent.parent.glob("two-*-0000?-*")}) == 2
    assert trained["status"] == "finished"
    assert json.loads(file.read_text())["best"] == trained["trial"]
    rows = [json.loads(line) for line in (Path(trained["run"]) / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "eval/success" in row] == [1, 3]
    assert all(row["train/episodes"] > 0 for row in rows), "no gradient: the trial trained nothing"
    assert failed["status"] == "failed"
    assert "/no/such/model" in failed["error"]
    best = yaml.safe_load((file.parent / "best.yaml").read_text())
    assert best["model"]["source"] == trained["values"]["model.source"]
    assert f"rayward train --config {file.parent / 'best.yaml'}" in printed
    assert not [line for line in cluster.serving_processes() if "ServeReplica" in line], "a trial left its replicas"


def test_a_sweep_whose_trials_all_fail_ends_with_exit_code_1_and_the_cause(cluster: Cluster) -> None:
    with cluster.start(
        "python", "-m", "training.tune", "--config", "sweep.yaml", "--set", "name=none",
        "--set", "space.model.source.grid=[/no/such/model]",
    ) as sweep:  # fmt: skip
        assert sweep.popen.wait(timeout=120) == 1
        sweep.wait_for("rayward: no trial of the sweep reported eval/success: ConfigError: model.source", deadline_s=10)
