"""Does a policy that is trained on demonstrations act once it is served? `python -m benchmarks.closed_loop [--check]`

`training.bc` trains the reaching policy for minutes. One application serves it and the same network untrained; each
plays the same held-out tables, every chunk asked for over gRPC by our client, all tables side by side.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from benchmarks.common import Figure, options, report
from configs.bc import BCConfig
from configs.serving import ServeConfig
from deployments.chunks.checkpoint import save, untrained
from deployments.chunks.description import read_description
from deployments.chunks.predict import seed_of
from deployments.client.grpc import RobotClient
from deployments.client.observing import Seen
from deployments.protocol.act import Actions, ChunkRequest
from training.cluster import application, ports, ray_session
from training.imitation.chunks import clone
from training.imitation.robots import closed_loop
from training.tracking.intervals import Estimate

CONFIG = "configs/bc/reach_tiny.yaml"
SUCCESS = 0.9
ROBOTS = 16  # that wait for an answer at a time
UNTRAINED, TRAINED = "untrained", "trained"


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=f"of {CONFIG}")
    chosen, console = parser.parse_args(), Console()
    with tempfile.TemporaryDirectory() as folder:
        config = BCConfig.load(CONFIG, [*chosen.set, f"output={folder}/{TRAINED}"])
        cloned = clone(config, lambda step, steps, loss: console.print(f"step {step}/{steps}, loss {loss:.4f}"))
        description = read_description(config.output)
        save(Path(folder) / UNTRAINED, description, untrained(description, config.seed).state_dict())
        served = played(Path(folder), config)
    report("closed_loop", figures(served[UNTRAINED], served[TRAINED], cloned.trained), chosen)


def played(folder: Path, config: BCConfig) -> dict[str, Estimate]:
    """Serves the two checkpoints, and plays each; success by policy."""
    grpc_port = ports.free_port()
    policies = [
        {
            "kind": "chunks",
            "name": name,
            "checkpoint": str(folder / name),
            "flow_steps": config.evaluation.flow_steps,
            "request_deadline_s": 30,
            "replicas": {"drain_s": 1, "num_cpus": 1},
        }
        for name in (UNTRAINED, TRAINED)
    ]
    serving = ServeConfig.parse(
        {
            "http": {"port": ports.free_port()},
            "grpc": {"port": grpc_port},
            "policies": policies,
            "storage_path": str(folder),
        }
    )
    with ray_session.ray_session(), application.application(serving):
        return {name: success(f"127.0.0.1:{grpc_port}", name, config) for name in (UNTRAINED, TRAINED)}


def success(target: str, policy: str, config: BCConfig) -> Estimate:
    """Share of the held-out tables on which the served policy reaches the named object and stays there."""
    with RobotClient(target, policy=policy, encoding="png", timeout_s=30) as client, ThreadPoolExecutor(ROBOTS) as pool:

        def ask(requests: Sequence[ChunkRequest]) -> list[Actions]:
            return [told.actions for told in pool.map(client.act, map(seen, requests))]

        return closed_loop(ask, config.evaluation, config.table)


def seen(request: ChunkRequest) -> Seen:
    """The observation as a robot sends it, with the noise that the policy draws for it in this process."""
    return Seen([request.images[0]], request.prompt, request.state, noise_seed=seed_of(request))


def figures(untrained_: Estimate, trained: Estimate, in_process: Estimate) -> list[Figure]:
    gap = trained.low - untrained_.high
    return [
        *interval("untrained, over gRPC", untrained_),
        *interval("trained, over gRPC", trained, SUCCESS),
        *interval("trained, in the process that trained it", in_process),
        Figure("over gRPC, lower end of trained less upper end of untrained", gap, "success", 0.0),
    ]


def interval(name: str, success_: Estimate, bar: float | None = None) -> list[Figure]:
    """Wilson's, 95 %."""
    return [
        Figure(name, success_.value, "success", bar),
        Figure(f"{name}: interval from", success_.low, "success"),
        Figure(f"{name}: interval to", success_.high, "success"),
    ]


if __name__ == "__main__":
    main()
