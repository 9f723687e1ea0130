"""Two replicas under load: `python -m benchmarks.serve_under_load [--check] [--policies text chunks]`.

For each policy: the peak (clients that wait for their answers, more and more of them); ten new weight versions at 0.6
of the peak; twice the peak, whether answers come or not, every request with a deadline; one replica killed at 0.6 of
the peak. Client and server share the machine. The best of several short loads is above what lasts, and a machine may be
slower a minute later: so the overload is compared with the peak for as long as itself, one half before and one after.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.common import Figure, options, report
from benchmarks.load import (
    Ask,
    Outcome,
    closed_loop,
    good,
    open_loop,
    p50_p99_ms,
    statuses,
    unexplained,
)
from benchmarks.loaded import POLICIES, REPLICAS, Loaded
from benchmarks.weight_sync import tensors_of
from configs.serving import ServeConfig
from deployments.weights.store import WeightStore
from training.cluster import application, ports, ray_session

DEADLINE_S = 1.0
STEADY, OVER = 0.6, 2.0  # of the peak
CLIENTS = (4, 8, 16, 32, 64)
VERSIONS = 10
GOODPUT = 0.9
RECOVERY_LIMIT_S = 180.0
AFTER_S = 5.0  # of steady load once two replicas answer again


@dataclass(frozen=True)
class Bench:
    loaded: Loaded
    address: str
    handle: Any  # of the policy's deployment
    store: WeightStore
    tensors: list[tuple[str, Any]]
    seconds: float  # of each closed loop, and of the steady load before something happens
    overload_s: float

    def figure(self, name: str, value: float, unit: str, bar: float | None = None, lower: bool = False) -> Figure:
        return Figure(f"{self.loaded.name}: {name}", value, unit, bar, lower_is_better=lower)


async def measured(bench: Bench) -> list[Figure]:
    async with AsyncExitStack() as stack:
        plain = await bench.loaded.plain(stack, bench.address, DEADLINE_S)
        patient = await bench.loaded.patient(stack, bench.address)
        await closed_loop(plain, 16, bench.seconds)  # warms up
        peak, clients = await peak_rate(bench, plain)
        figures = [bench.figure("peak", peak, "requests/s")]
        for phase in (
            hot_swap(bench, patient, STEADY * peak),
            overload(bench, plain, clients),
            replica_killed(bench, patient, STEADY * peak),
        ):
            found = await phase
            for figure in found:
                print(f"{figure.name}: {figure.value:,.3f} {figure.unit}", flush=True)
            figures += found
    return figures


async def peak_rate(bench: Bench, ask: Ask) -> tuple[float, int]:
    """The most answers per second within their deadline, and how many clients get them."""
    return max([(await rate_of(bench, ask, clients, bench.seconds), clients) for clients in CLIENTS])


async def rate_of(bench: Bench, ask: Ask, clients: int, seconds: float) -> float:
    """Answers per second within their deadline."""
    began = time.perf_counter()
    outcomes = await closed_loop(ask, clients, seconds)
    rate = good(outcomes, DEADLINE_S) / (time.perf_counter() - began)
    print(f"{bench.loaded.name}: {clients} clients, {rate:.0f}/s, {_times(outcomes)}", flush=True)
    return rate


async def hot_swap(bench: Bench, ask: Ask, rate: float) -> list[Figure]:
    before = await open_loop(ask, rate, for_seconds(bench.seconds))
    swapped = asyncio.Event()
    load = asyncio.create_task(open_loop(ask, rate, lambda _: not swapped.is_set()))
    for version in range(1, VERSIONS + 1):
        await asyncio.to_thread(bench.store.publish, version, iter(bench.tensors))
        await asyncio.sleep(bench.seconds / VERSIONS)
    swapped.set()
    during = await load
    newest = max(outcome.answer.version for outcome in during)
    (p50, p99), (p50_during, p99_during) = p50_p99_ms(before), p50_p99_ms(during)
    return [
        bench.figure("hot swap, failed requests", sum(o.failed for o in before + during), "requests", 0, lower=True),
        bench.figure("hot swap, newest version that answered", newest, f"of {VERSIONS}", VERSIONS - 1),
        bench.figure("0.6 of the peak, p50", p50, "ms"),
        bench.figure("0.6 of the peak, p99", p99, "ms"),
        bench.figure("hot swap, p50", p50_during, "ms"),
        bench.figure("hot swap, p99", p99_during, "ms"),
    ]


async def overload(bench: Bench, ask: Ask, clients: int) -> list[Figure]:
    """`clients`: how many get the peak."""
    before = await rate_of(bench, ask, clients, bench.overload_s / 2)
    began = time.perf_counter()
    outcomes = await open_loop(ask, OVER * before, for_seconds(bench.overload_s))
    offered_s = max(bench.overload_s, time.perf_counter() - began - DEADLINE_S)
    goodput = good(outcomes, DEADLINE_S) / offered_s
    peak = (before + await rate_of(bench, ask, clients, bench.overload_s / 2)) / 2
    return [
        bench.figure("overload, the peak around it", peak, "requests/s"),
        bench.figure("overload, offered", len(outcomes) / offered_s / peak, "of the peak"),
        bench.figure("overload, goodput", goodput / peak, "of the peak", GOODPUT),
        bench.figure("overload, without an answer or a hint", unexplained(outcomes), "requests", 0, lower=True),
        *(
            bench.figure(f"overload, status {status or 'none'}", count, "requests")
            for status, count in sorted(statuses(outcomes).items())
        ),
        bench.figure("overload, p99 of the answers", p50_p99_ms(outcomes)[1], "ms"),
    ]


async def replica_killed(bench: Bench, ask: Ask, rate: float) -> list[Figure]:
    recovered = asyncio.Event()
    load = asyncio.create_task(open_loop(ask, rate, lambda _: not recovered.is_set()))
    await asyncio.sleep(bench.seconds)
    killed = min(await pids(bench.handle))
    os.kill(killed, signal.SIGKILL)
    began = time.perf_counter()
    async with asyncio.timeout(RECOVERY_LIMIT_S):
        await all_answer(bench.handle, killed)
    ended = time.perf_counter()
    await asyncio.sleep(AFTER_S)
    recovered.set()
    outcomes = await load
    print(f"{bench.loaded.name}: replica killed, statuses {dict(statuses(outcomes))}", flush=True)
    p50, p99 = p50_p99_ms([outcome for outcome in outcomes if began <= outcome.due <= ended])
    return [
        bench.figure("replica killed, lost requests", sum(o.failed for o in outcomes), "requests", 0, lower=True),
        bench.figure("until two serve again, p50", p50, "ms"),
        bench.figure("until two serve again, p99", p99, "ms"),
        bench.figure("until two serve again", ended - began, "s"),
    ]


async def all_answer(handle: Any, killed: int) -> None:
    while True:
        if len(await pids(handle) - {killed}) >= REPLICAS:
            return
        await asyncio.sleep(0.2)


async def pids(handle: Any) -> set[int]:
    """Of the replicas that answer."""
    try:
        found = await handle.broadcast("status").results_async(timeout_s=5, return_exceptions=True)
    except Exception as error:  # while Serve is finding out that one is gone
        print(f"replicas cannot be asked: {error!r}"[:200], flush=True)
        return set()
    return {status["pid"] for status in found if isinstance(status, dict)}


def for_seconds(seconds: float) -> Callable[[float], bool]:
    return lambda at_s: at_s < seconds


def _times(outcomes: list[Outcome]) -> str:
    p50, p99 = p50_p99_ms(outcomes)
    return f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, statuses {dict(statuses(outcomes))}"


def served(chosen: argparse.Namespace, folder: str) -> list[Figure]:
    from ray import serve

    port, figures = ports.free_port(), []
    policies = {name: POLICIES[name]() for name in chosen.policies}
    roots = {name: f"{folder}/weights-{name}" for name in policies}
    entries = [loaded.settings(roots[name]) for name, loaded in policies.items()]
    config = application.with_made_models(
        ServeConfig.parse({"http": {"port": port}, "policies": entries, "storage_path": folder})
    )
    with application.application(config):
        for (name, loaded), policy in zip(policies.items(), config.policies, strict=True):
            bench = Bench(
                loaded,
                f"http://127.0.0.1:{port}",
                serve.get_deployment_handle(policy.name, config.name),
                WeightStore(roots[name], keep=2),
                tensors_of(loaded.folder(policy)),
                chosen.seconds,
                chosen.overload_s,
            )
            figures += asyncio.run(measured(bench))
    return figures


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load of the peak, and of the steady ones")
    parser.add_argument("--overload-s", type=float, default=60.0)
    chosen = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(ray_session.ray_session())
        figures = served(chosen, folder)
    report("serve_under_load", figures, chosen)


if __name__ == "__main__":
    main()
