"""Who may import whom: the tables are the rules, the rest of the file reads the imports of the sources by ast."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("configs", "envs", "deployments", "training")

# Package -> the first-party packages or modules that it may import, anywhere in a file.
FIRST_PARTY = {
    "configs": {"configs"},
    "envs": {"envs"},
    "deployments": {"deployments", "configs", "envs"},
    "training": {
        "training", "configs", "envs",
        "deployments.protocol.generate", "deployments.client.http", "deployments.weights.store", "deployments.errors",
        "deployments.client.batcher",
    },
}  # fmt: skip
FIRST_PARTY_EXCEPTIONS = {
    "training.cluster.ray_session": {"deployments.app"},  # the one module that starts the Serve application
    "training.grpo": {"deployments.weights.push"},  # the publishers of weight versions
    "deployments.weights.store_then_push": {"deployments.weights.push"},
}

# Library -> the only modules that may import it, anywhere in a file.
RESERVED = {
    "ray": {
        "deployments.replicas.text", "deployments.transports.http.ingress", "deployments.grpc_service", "deployments.app",
        "deployments.weights.object_store", "deployments.transports.http.answers",
        "training.rollouts.coordinator", "training.grpo", "training.tune", "training.cli", "training.evaluation.evaluate",
        "training.cluster.ray_session", "training.quickstart",
        "training.tracking.monitors",  # the Prometheus tracker: Ray's metrics
    },
    "vllm": {
        "deployments.engines.vllm.engine", "deployments.engines.vllm.openai", "deployments.engines.vllm.plugin",
        "deployments.engines.vllm.pull", "deployments.engines.vllm.push",
        "deployments.weights.push",
    },
}  # fmt: skip

# Package or module -> what it may not import at module level (inside a function it may).
NOT_AT_MODULE_LEVEL = {
    "configs": {"torch"},
    "envs": {"torch"},
    "deployments.client.http": {"torch"},
    "deployments.protocol.generate": {"torch"},
    "deployments.errors": {"torch"},
}

# Package -> all the third-party libraries that it may import at module level.
ONLY_AT_MODULE_LEVEL = {
    "configs": {"pydantic", "yaml"},
    "envs": {"numpy"},
}


def test_the_sources_keep_the_import_rules() -> None:
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("envs/game.py", "import configs.training", "envs.game imports configs.training"),
        ("envs/game.py", "def f():\n    from training import types", "envs.game imports training.types"),
        ("configs/serving.py", "from envs.registry import make", "configs.serving imports envs.registry"),
        ("deployments/act.py", "from training.types import Turn", "deployments.act imports training.types"),
        ("training/rollouts/episode.py", "from deployments.replicas.text import R", "training.rollouts.episode imports deployments.replicas.text"),
        ("training/rollouts/episode.py", "from deployments import app", "training.rollouts.episode imports deployments.app"),
        ("training/rollouts/episode.py", "import importlib\nimportlib.import_module('ray')", "training.rollouts.episode imports ray"),
        ("training/learner/learner.py", "def f():\n    import ray", "training.learner.learner imports ray"),
        ("deployments/act.py", "from ray import serve", "deployments.act imports ray"),
        ("deployments/replicas/text.py", "import vllm.sampling_params", "deployments.replicas.text imports vllm"),
        ("deployments/client/http.py", "import torch", "deployments.client.http imports torch at module level"),
        ("deployments/inner/deep.py", "from ..app import build\nimport ray", "deployments.inner.deep imports ray"),
        ("envs/game.py", "try:\n    import torch\nfinally:\n    pass", "envs.game imports torch at module level"),
        ("envs/game.py", "import scipy.stats", "envs.game imports scipy at module level"),
    ],
)  # fmt: skip
def test_a_violation_is_reported(tmp_path: Path, path: str, source: str, complaint: str) -> None:
    plant(tmp_path, path, source)
    for module in ("deployments/app.py", "training/types.py"):
        plant(tmp_path, module, "")

    assert any(line.startswith(complaint) for line in violations(tmp_path)), violations(tmp_path)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("training/rollouts/episode.py", "from deployments import client\nfrom deployments.errors import PolicyError"),
        ("training/rollouts/episode.py", "from .types import Turn\nfrom . import types"),
        ("training/grpo.py", "import ray"),
        ("envs/robot.py", "import numpy as np\n\ndef make():\n    import mujoco\n    import torch"),
        ("deployments/client/http.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
    ],
)
def test_what_the_rules_allow_is_not_reported(tmp_path: Path, path: str, source: str) -> None:
    for module in ("deployments/client/http.py", "deployments/errors.py", "training/types.py"):
        plant(tmp_path, module, "")
    plant(tmp_path, path, source)

    assert violations(tmp_path) == []


def test_the_client_side_leaves_ray_torch_and_vllm_unloaded() -> None:
    program = (
        "import sys, envs, configs, configs.training, configs.serving, envs.registry, deployments.client.http\n"
        "print(*sorted({'ray', 'torch', 'vllm', 'transformers'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


# -- reading imports ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Import:
    target: str  # dotted, absolute: "deployments.client.http", "numpy.random"
    line: int
    module_level: bool  # runs when the module is imported


def violations(root: Path) -> list[str]:
    """One readable line for each import under `root` that breaks a rule."""
    return [
        f"{module} imports {complaint}  ({path.relative_to(root)}:{found.line})"
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
        for module in [module_name(path, root)]
        for found in imports_of(path, root)
        for complaint in complaints(module, found)
    ]


def complaints(module: str, found: Import) -> Iterator[str]:
    package, library = module.split(".")[0], found.target.split(".")[0]
    if library in PACKAGES:
        allowed = FIRST_PARTY[package] | FIRST_PARTY_EXCEPTIONS.get(module, set())
        if not any(is_within(found.target, name) for name in allowed):
            yield f"{found.target}; it may import {', '.join(sorted(allowed))}"
        return
    if library in RESERVED and module not in RESERVED[library]:
        yield f"{library}; only {', '.join(sorted(RESERVED[library]))} may"
    if not found.module_level:
        return
    if any(is_within(module, place) and library in banned for place, banned in NOT_AT_MODULE_LEVEL.items()):
        yield f"{library} at module level; import it inside the function that needs it"
    elif package in ONLY_AT_MODULE_LEVEL and library not in sys.stdlib_module_names | ONLY_AT_MODULE_LEVEL[package]:
        yield f"{library} at module level; {package} needs only {', '.join(sorted(ONLY_AT_MODULE_LEVEL[package]))}"


def imports_of(path: Path, root: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    package = (
        module_name(path, root).split(".") if path.name == "__init__.py" else module_name(path, root).split(".")[:-1]
    )
    at_module_level = set(nodes_run_on_import(tree))
    for node in ast.walk(tree):
        for target in targets_of(node, package, root):
            yield Import(target, node.lineno, node in at_module_level)  # type: ignore[attr-defined]


def targets_of(node: ast.AST, package: list[str], root: Path) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            above = package[: len(package) - level + 1] if level else []
            source = ".".join([*above, *([module] if module else [])])
            for (
                alias
            ) in names:  # `from deployments import client` names a module, `from ... import PolicyError` does not
                yield f"{source}.{alias.name}" if is_module(f"{source}.{alias.name}", root) else source
        case ast.Call(
            func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"), args=args
        ):
            yield from (str(arg.value) for arg in args[:1] if isinstance(arg, ast.Constant))


def nodes_run_on_import(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes except the bodies of functions and of `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from nodes_run_on_import(child)


def is_module(name: str, root: Path) -> bool:
    path = root.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def is_within(name: str, place: str) -> bool:
    return name == place or name.startswith(place + ".")


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def plant(root: Path, path: str, source: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(source)
