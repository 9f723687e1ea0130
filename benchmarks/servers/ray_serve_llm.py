"""ray.serve.llm around the benchmarks' model, until it is terminated:
`python -m benchmarks.servers.ray_serve_llm MODEL PORT CONCURRENCY`. A program of its own because direct streaming is a
switch of the whole process, and of its Ray."""

from __future__ import annotations

import sys
import threading
from typing import Any

from benchmarks.engines import Load, engine_config
from configs.serving import HttpConfig
from deployments.engines.vllm.settings import engine_arguments, process_environment
from training.cluster import application, ray_session
from training.cluster.quiet import quiet_libraries

CALLS = 1024  # that a replica takes at a time, as our ingress; its own default is lower
OURS_ALONE = ("model", "distributed_executor_backend")  # it has settings of its own for these


def llm_config(model: str, load: Load) -> Any:
    from ray.serve.llm import LLMConfig

    config = engine_config(load)
    arguments = engine_arguments(config, model, weight_updates=False)
    return LLMConfig(
        model_loading_config={"model_id": "policy", "model_source": model},
        engine_kwargs={name: value for name, value in arguments.items() if name not in OURS_ALONE},
        accelerator_config={"kind": "cpu"},
        placement_group_config={"bundles": [{"CPU": 1}]},
        deployment_config={"num_replicas": 1, "max_ongoing_requests": CALLS},
        log_engine_metrics=False,
        runtime_env={"env_vars": {**process_environment(config), "OMP_NUM_THREADS": "1"}},
    )


def main() -> None:
    quiet_libraries()
    model, port, concurrency = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with ray_session.ray_session():
        from ray import serve
        from ray.serve.llm import build_openai_app

        application.start_serve(HttpConfig(port=port))
        app = build_openai_app({"llm_configs": [llm_config(model, Load("", 0, 0, concurrency, 0))]})
        serve.run(app, name="ray-serve-llm", route_prefix="/")
        threading.Event().wait()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
