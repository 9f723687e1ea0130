"""What is bound for a configuration, before Ray starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs.base import ConfigError
from configs.policies import PolicyConfig, ProviderPolicy
from configs.replicas import EngineConfig
from configs.serving import HttpConfig, ServeConfig
from deployments import app


def config(storage: Path, *policies: dict[str, Any]) -> ServeConfig:
    return ServeConfig.parse({"policies": list(policies), "storage_path": str(storage)})


def test_models_that_are_made_on_the_spot_are_replaced_by_their_folders(tmp_path: Path) -> None:
    given = config(tmp_path, {"name": "a", "model": "tiny:text"}, {"name": "b", "model": "Qwen/Qwen2-0.5B"})
    made = app.with_made_models(given)
    tiny, named = made.policies
    assert isinstance(tiny, PolicyConfig)
    assert isinstance(named, PolicyConfig)
    assert Path(tiny.model) == tmp_path / "models" / "tiny-text"
    assert (Path(tiny.model) / "config.json").is_file()
    assert named.model == "Qwen/Qwen2-0.5B"
    assert app.with_made_models(made) == made


def test_the_environment_chooses_the_model_behind_an_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_MODEL", "gemini/flash")
    monkeypatch.setenv("CONCURRENCY_LIMIT", "3")
    [made] = app.with_made_models(config(tmp_path, {"kind": "provider", "model": "openai/gpt-4o"})).policies
    assert isinstance(made, ProviderPolicy)
    assert (made.model, made.concurrency) == ("gemini/flash", 3)


def test_a_folder_that_cannot_be_served_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"policy 'policy': model folder .* does not exist"):
        app.bind(config(tmp_path, {"model": str(tmp_path / "none")}))


def test_a_policy_reserves_what_its_configuration_says(tmp_path: Path) -> None:
    replicas = {"num_cpus": 2, "min_replicas": 1, "max_replicas": 3, "resources": {"serve_node": 1}}
    bound = app.bind(config(tmp_path, {"name": "a", "model": "tiny:text", "replicas": replicas}))
    deployment = bound._bound_deployment.init_kwargs["policy_0"]._bound_deployment
    options = deployment.ray_actor_options
    assert (deployment.name, options["num_cpus"], options["resources"]) == ("a", 2, {"serve_node": 1})
    assert options["runtime_env"]["env_vars"]["OMP_NUM_THREADS"]


def test_a_loaded_policy_is_an_application_without_route_and_without_servers_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Any] = []
    monkeypatch.setattr("ray.serve.run_many", lambda targets, **how: begun.append((targets, how)))
    policy = {"name": "a", "kind": "provider", "model": "openai/gpt-4o"}

    assert app.load_policy(policy, "rayward+a", str(tmp_path)) is None

    [([target], how)] = begun
    assert (target.name, target.route_prefix, how) == ("rayward+a", None, {"wait_for_applications_running": False})
    deployment = target.target._bound_deployment
    environment = deployment.ray_actor_options["runtime_env"]["env_vars"]
    assert deployment.name == "a"
    assert (environment["RAY_SERVE_ENABLE_HA_PROXY"], environment["RAY_SERVE_ENABLE_DIRECT_INGRESS"]) == ("0", "0")


def test_a_policy_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    told = app.load_policy({"name": "a", "model": str(tmp_path / "none")}, "rayward+a", str(tmp_path))
    assert told is not None
    assert "policy 'a': model folder" in told


def test_only_the_configuration_lets_callers_load_policies(tmp_path: Path) -> None:
    policy = {"kind": "provider", "model": "openai/gpt-4o"}
    plain = config(tmp_path, policy)
    managed = plain.model_copy(update={"http": HttpConfig(manage_policies=True)})
    assert app.bind(plain)._bound_deployment.init_args[1] is None
    assert app.bind(managed)._bound_deployment.init_args[1] is not None


def test_an_ingress_that_is_full_refuses_with_a_hint_when_to_try_again(tmp_path: Path) -> None:
    """The answer is Serve's own, and without these it would be a bare 503, or no answer: a queue without end."""
    bound = app.bind(config(tmp_path, {"model": "tiny:text"}))._bound_deployment
    refusal = bound.backpressure_config
    assert bound.max_queued_requests > 0
    assert (refusal.status_code, refusal.retry_after_s) == (429, 1.0)


def test_replicas_with_packages_of_their_own_run_in_an_environment_of_their_own(tmp_path: Path) -> None:
    def environment(**own: Any) -> dict[str, Any]:
        policy = {"name": "a", "kind": "chunks", "checkpoint": "tiny:robot", "device": "cpu", "runtime_env": own}
        bound = app.bind(config(tmp_path, policy))
        options = bound._bound_deployment.init_kwargs["policy_0"]._bound_deployment.ray_actor_options
        return {name: value for name, value in options["runtime_env"].items() if name != "env_vars"}

    assert environment() == {}
    assert environment(py_executable="/opt/lerobot/bin/python") == {"py_executable": "/opt/lerobot/bin/python"}
    assert environment(pip=["lerobot==0.4.4"]) == {"pip": ["lerobot==0.4.4"]}
    with pytest.raises(ConfigError, match="set pip or py_executable, not both"):
        environment(pip=["lerobot"], py_executable="python")


@pytest.mark.parametrize(("share", "memory"), [(1.0, 0.85), (0.5, 0.4)])
def test_a_replica_reserves_its_share_of_the_gpu(share: float, memory: float) -> None:
    engine = EngineConfig(device="gpu", gpu_share=share, gpu_memory_utilization=memory)
    options = app._resources(PolicyConfig(model="m", engine=engine), {})
    assert options["ray_actor_options"]["num_gpus"] == share
