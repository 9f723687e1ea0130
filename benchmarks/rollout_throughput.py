"""How much of the engine's speed does a rollout get through Serve? `python -m benchmarks.rollout_throughput [--check]`.

The same requests, in turns: through Serve as a rollout worker sends them, AsyncLLM in this process, the offline engine.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import Figure, options, report
from benchmarks.engines import InProcess, Load, Offline, Prompts, at_concurrency, engine_config, tiny_model
from configs.training import TrainConfig
from training.cluster import application, ray_session

LOADS = {
    "a": Load("a: 120 + 16 tokens", 120, 16, 64, 1000),
    "b": Load("b: 26 + 4 tokens", 26, 4, 192, 3000),
}
BARS = {"a": (0.95, 0.90), "b": (None, 0.75)}  # of AsyncLLM, of the offline engine


class ThroughServe:
    """An actor that sends requests as RolloutWorker does."""

    def __init__(self, load: Load, config: dict[str, Any], app: str) -> None:
        import ray

        from training.rollouts.worker import serve_generate

        @ray.remote
        class Client:
            def __init__(self) -> None:
                self._generate = serve_generate(TrainConfig.model_validate(config), app)
                self._sent = 0

            async def rate(self, prompts: Prompts) -> float:
                from deployments.protocol.generate import GenerateRequest, Sampling

                sampling = Sampling(max_tokens=load.answer_tokens, ignore_eos=True)

                async def one(prompt: list[int]) -> None:
                    self._sent += 1
                    answer = await self._generate(GenerateRequest(f"r{self._sent}", prompt, sampling))
                    assert len(answer.token_ids) == load.answer_tokens

                return await at_concurrency(one, prompts, load.concurrency)

        self._client = Client.options(num_cpus=0.25).remote()

    async def rate(self, prompts: Prompts) -> float:
        value: float = await self._client.rate.remote(prompts)
        return value


def measure(load: Load, model: Path, rounds: int) -> dict[str, list[float]]:
    config = TrainConfig.parse({"serving": {"engine": engine_config(load).model_dump()}})
    sides: dict[str, Any] = {}
    rates: dict[str, list[float]] = {"serve": [], "AsyncLLM": [], "offline": []}
    serve_config = application.serve_config(config, str(model), weights_root=None)
    with ray_session.ray_session(), application.application(serve_config):

        async def play() -> None:
            sides["serve"] = ThroughServe(load, config.dump(), serve_config.name)
            sides["AsyncLLM"] = InProcess(load, model)
            sides["offline"] = Offline(load, model)
            for round_ in range(-1, rounds):  # the first warms up and is not counted
                order = list(rates) if round_ % 2 else list(reversed(rates))
                for side in order:
                    rate = await sides[side].rate(load.prompts(round_))
                    if round_ >= 0:
                        rates[side].append(rate)
                print(
                    f"{load.name}, round {round_}:", {side: round(r[-1]) for side, r in rates.items() if r}, flush=True
                )

        try:
            asyncio.run(play())
        finally:
            for side in ("AsyncLLM", "offline"):
                if side in sides:
                    sides[side].close()
    return rates


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--case", choices=("a", "b", "both"), default="both")
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args()
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model(Path(folder) / "model")
        for case in ("a", "b") if chosen.case == "both" else (chosen.case,):
            load = LOADS[case]
            rates = measure(load, model, chosen.rounds)
            medians = {side: statistics.median(values) for side, values in rates.items()}
            figures += [Figure(f"{load.name}, {side}", value, "requests/s") for side, value in medians.items()]
            for side, bar in zip(("AsyncLLM", "offline"), BARS[case], strict=True):
                ratio = statistics.median(s / o for s, o in zip(rates["serve"], rates[side], strict=True))
                figures.append(Figure(f"{load.name}, serve / {side}", ratio, "ratio", bar))
    report("rollout_throughput", figures, chosen)


if __name__ == "__main__":
    main()
