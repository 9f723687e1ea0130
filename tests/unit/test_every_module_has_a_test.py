"""Every module that needs neither ray, vllm nor torch has a unit test file of its own, in the same folder below
tests/unit; or it is listed here with the test that covers it."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("configs", "envs", "deployments", "training")
HEAVY = {"ray", "vllm", "torch", "transformers", "trl"}

# Module -> the test below tests/ that covers it.
ELSEWHERE = {
    "configs/models.py": "unit/configs/test_training.py",
    "deployments/client/policies.py": "unit/training/commands/test_load.py",
    "deployments/engines/base.py": "integration/test_serving.py",
    "deployments/engines/chunks/batched.py": "unit/deployments/engines/chunks/test_engine.py",
    "deployments/engines/provider/calls.py": "unit/deployments/engines/provider/test_engine.py",
    "deployments/protocol/policy_pb2.py": "unit/deployments/protocol/test_policy.py",
    "deployments/protocol/policy_pb2_grpc.py": "unit/deployments/protocol/test_policy.py",
    "deployments/transports/http/handles.py": "integration/test_serving.py",
    "deployments/transports/loaded.py": "unit/deployments/transports/test_managed.py",
    "deployments/storage/tensors.py": "unit/deployments/storage/test_models.py",
    "deployments/weights/push_steps.py": "gpu/test_transfer_gpu.py",
    "training/cluster/errors.py": "unit/training/cluster/test_ports.py",
    "training/cluster/started.py": "unit/training/cluster/test_watcher.py",
    "training/bc.py": "unit/training/commands/test_bc.py",
    "training/certify/faults_rollouts.py": "integration/test_certify.py",
    "training/certify/faults_sampler.py": "integration/test_certify.py",
    "training/certify/rough.py": "integration/test_certify.py",
    "training/commands/evaluate.py": "integration/test_training.py",
    "training/commands/options.py": "unit/training/commands/test_app.py",
    "training/commands/play.py": "unit/training/commands/test_app.py",
    "training/commands/progress.py": "integration/test_quickstart.py",
    "training/commands/quickstart.py": "integration/test_quickstart.py",
    "training/commands/serve.py": "integration/test_serving.py",
    "training/commands/train.py": "integration/test_training.py",
    "training/grpo.py": "integration/test_cluster_way.py",
    "training/environments/calls.py": "unit/training/rollouts/test_episode.py",
    "training/checks/failures.py": "unit/training/checks/test_alarms.py",
    "training/rollouts/packed.py": "unit/training/rollouts/test_samples.py",
    "training/rendering/tokenizer.py": "unit/training/rendering/test_renderer.py",
    "training/learner/settings.py": "unit/training/learner/test_learner.py",
    "training/run/loop.py": "integration/test_training.py",
    "training/tune.py": "integration/test_cluster_way.py",
}


def is_pure(module: Path) -> bool:
    """Whether a module imports none of the heavy libraries, not even inside a function."""
    imported = set()
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.split(".")[0])
    return not imported & HEAVY


def without_own_test() -> set[str]:
    modules = (file.relative_to(ROOT) for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    pure = (module for module in modules if module.name != "__init__.py" and is_pure(module))
    return {str(m) for m in pure if not (ROOT / "tests" / "unit" / m.parent / f"test_{m.name}").is_file()}


def test_every_pure_module_has_a_test_of_its_own_or_is_listed() -> None:
    assert without_own_test() - set(ELSEWHERE) == set()


def test_the_tests_that_are_listed_exist() -> None:
    assert {module for module in ELSEWHERE if not (ROOT / module).is_file()} == set()
    assert {test for test in ELSEWHERE.values() if not (ROOT / "tests" / test).is_file()} == set()
