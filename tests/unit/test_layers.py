"""Who may import whom. The tables are the rules; the rest of the file reads the imports of the sources by ast.

Three kinds of rule: layers inside a package (LAYERS), what one package may take from another (BETWEEN), and which
modules may load a heavy library (RESERVED, NOT_AT_MODULE_LEVEL). And no two modules import each other in a circle.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("configs", "envs", "deployments", "training")

# Lowest layer first; what stands on one line shares a layer. A module imports from its own subpackage and from lower
# layers, never from a higher one and never from another subpackage of its own layer.
LAYERS = {
    "configs": [
        "base", "acting access bc dotenv launcher models replicas rewards rollouts", "curricula policies", "providers",
        "serving", "run", "training", "sweep",
    ],
    "envs": ["base parsing randomness", "history registry", "rewards games tools", "pixels robots", "bridges"],
    "deployments": [
        "errors protocol", "storage", "weights chunks observe", "access", "client engines", "replicas recording lab",
        "acting", "transports", "app",
    ],
    "training": [
        "types cluster", "algorithms tracking checks", "environments rendering", "rollouts learner",
        "evaluation imitation", "export run", "sweep certify", "commands", "grpo tune bc",
    ],
}  # fmt: skip

# Package -> what it may import of the others, anywhere in a file.
BETWEEN = {
    "configs": set(),
    "envs": set(),
    "deployments": {"configs", "envs"},
    "training": {
        "configs", "envs", "deployments.errors", "deployments.protocol", "deployments.storage", "deployments.weights",
        "deployments.client", "deployments.chunks",
    },
}  # fmt: skip
# training.cluster decides who runs where: it binds the application and asks what an engine needs. training.commands
# makes the API keys that serving checks. training.certify puts faults into the engine.
BETWEEN_EXCEPTIONS = {
    "training.cluster": {"deployments.app", "deployments.engines.vllm.settings"},
    "training.commands": {"deployments.access.keys"},
    "training.certify": {"deployments.engines.vllm.engine", "deployments.engines.vllm.weights"},
}

# Nobody imports these: they are where a command starts.
ENTRY_POINTS = {"training.grpo", "training.tune", "training.bc"}
ENTRY_POINT_LINES = 20
LAST_LAYER = "training.commands"  # imported by entry points alone

# Library -> the only places that may import it, anywhere in a file.
RESERVED = {
    "ray": {
        "deployments.replicas", "deployments.transports", "deployments.app", "deployments.access.provider_limits",
        "deployments.lab", "deployments.weights.object_store",
        "training.cluster", "training.rollouts.worker", "training.rollouts.pool", "training.rollouts.coordinator",
        "training.rollouts.session", "training.run", "training.sweep", "training.certify", "training.evaluation",
        "training.commands", "training.tracking.monitors",
    },
    "vllm": {"deployments.engines.vllm", "deployments.weights.push"},
}  # fmt: skip

# Place -> what it may not import at module level (inside a function it may).
NOT_AT_MODULE_LEVEL = {
    "configs": {"torch"},
    "envs": {"torch"},
    "deployments.client": {"torch", "transformers"},
    "deployments.protocol": {"torch", "grpc"},
    "deployments.errors": {"torch"},
    "deployments.storage": {"torch"},
    "training.types": {"torch"},
    "training.cluster": {"torch"},
    "training.environments": {"torch"},
    "training.rendering": {"torch"},
    "training.rollouts": {"torch"},
    "training.tracking": {"torch"},
    "training.checks": {"torch"},
    "training.evaluation": {"torch"},
    "training.certify": {"torch"},
    "training.commands": {"torch"},
}

# Package -> all the third-party libraries that it may import at module level.
ONLY_AT_MODULE_LEVEL = {
    "configs": {"pydantic", "yaml"},
    "envs": {"numpy"},
}
MOST_LINES = 300


def test_the_sources_keep_the_import_rules() -> None:
    assert violations(ROOT) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert cycles(ROOT) == []


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in sources(ROOT)}
    assert {str(path): lines for path, lines in lengths.items() if lines > MOST_LINES} == {}


def test_entry_points_hold_nothing_but_the_start() -> None:
    for module in ENTRY_POINTS:
        path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        if path.exists():
            assert len(path.read_text().splitlines()) <= ENTRY_POINT_LINES, path


def test_every_subpackage_says_what_is_in_it() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in sources(ROOT)
        if path.name == "__init__.py" and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("envs/games/game.py", "import configs.training", "envs.games.game imports configs.training"),
        ("envs/games/game.py", "def f():\n    from training import types", "envs.games.game imports training.types"),
        ("envs/base.py", "from envs.games import chess", "envs.base imports envs.games.chess"),
        ("configs/serving.py", "from envs.registry import make", "configs.serving imports envs.registry"),
        (
            "deployments/acting/act.py",
            "from training.types import Turn",
            "deployments.acting.act imports training.types",
        ),
        (
            "training/rollouts/a.py",
            "from deployments.replicas.text import R",
            "training.rollouts.a imports deployments.replicas",
        ),
        ("training/rollouts/a.py", "from deployments import app", "training.rollouts.a imports deployments.app"),
        (
            "training/rollouts/a.py",
            "from training.learner import policy",
            "training.rollouts.a imports training.learner",
        ),
        (
            "training/rollouts/a.py",
            "from training.run.loop import train_loop",
            "training.rollouts.a imports training.run",
        ),
        ("training/rollouts/a.py", "from training.rollouts.b import _c", "training.rollouts.a imports _c"),
        ("training/rollouts/a.py", "from training.rollouts import _b", "training.rollouts.a imports _b"),
        (
            "training/rollouts/a.py",
            "import importlib\nimportlib.import_module('ray')",
            "training.rollouts.a imports ray",
        ),
        ("training/rollouts/a.py", "import torch", "training.rollouts.a imports torch at module level"),
        ("training/run/a.py", "from training import grpo", "training.run.a imports training.grpo"),
        ("training/sweep/a.py", "from training.commands import app", "training.sweep.a imports training.commands.app"),
        ("training/learner/a.py", "def f():\n    import ray", "training.learner.a imports ray"),
        ("deployments/acting/act.py", "from ray import serve", "deployments.acting.act imports ray"),
        ("deployments/replicas/text.py", "import vllm.sampling_params", "deployments.replicas.text imports vllm"),
        (
            "deployments/replicas/text.py",
            "from deployments.recording import r",
            "deployments.replicas.text imports deployments.recording",
        ),
        ("deployments/client/http.py", "import torch", "deployments.client.http imports torch at module level"),
        ("deployments/acting/deep.py", "from ..app import build\nimport ray", "deployments.acting.deep imports ray"),
        (
            "envs/games/game.py",
            "try:\n    import torch\nfinally:\n    pass",
            "envs.games.game imports torch at module level",
        ),
        ("envs/games/game.py", "import scipy.stats", "envs.games.game imports scipy at module level"),
    ],
)
def test_a_violation_is_reported(tmp_path: Path, path: str, source: str, complaint: str) -> None:
    for module in (
        "deployments/app.py", "training/types.py", "training/grpo.py", "training/learner/policy.py",
        "training/run/loop.py", "training/commands/app.py", "envs/games/chess.py", "deployments/recording/r.py",
        "training/rollouts/_b.py",
    ):  # fmt: skip
        plant(tmp_path, module, "")
    plant(tmp_path, path, source)

    assert any(line.startswith(complaint) for line in violations(tmp_path)), violations(tmp_path)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("training/rollouts/a.py", "from deployments.client import http\nfrom deployments.errors import PolicyError"),
        ("training/rollouts/a.py", "from .b import Turn\nfrom . import b\nfrom training import types"),
        ("training/run/a.py", "import ray\nfrom training.learner import policy"),
        ("training/cluster/a.py", "def f():\n    from deployments.app import bind"),
        ("envs/games/robot.py", "import numpy as np\n\ndef make():\n    import mujoco\n    import torch"),
        ("deployments/client/http.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
    ],
)
def test_what_the_rules_allow_is_not_reported(tmp_path: Path, path: str, source: str) -> None:
    for module in (
        "deployments/client/http.py", "deployments/errors.py", "deployments/app.py", "training/types.py",
        "training/rollouts/b.py", "training/learner/policy.py",
    ):  # fmt: skip
        plant(tmp_path, module, "")
    plant(tmp_path, path, source)

    assert violations(tmp_path) == []


def test_a_circle_of_modules_is_named_whole(tmp_path: Path) -> None:
    plant(tmp_path, "training/rollouts/a.py", "from training.rollouts import b")
    plant(tmp_path, "training/rollouts/b.py", "def later():\n    from training.rollouts.c import x")
    plant(tmp_path, "training/rollouts/c.py", "import training.rollouts.a")
    plant(tmp_path, "training/rollouts/d.py", "from training.rollouts import a")

    assert cycles(tmp_path) == [
        "training.rollouts.a -> training.rollouts.b -> training.rollouts.c -> training.rollouts.a"
    ]


def test_the_client_side_leaves_heavy_libraries_unloaded() -> None:
    program = (
        "import sys, envs, configs, configs.training, configs.serving, envs.registry, deployments.client, "
        "deployments.protocol.generate\n"
        "print(*sorted({'ray', 'torch', 'vllm', 'transformers', 'grpc'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


# -- reading imports ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Import:
    target: str  # dotted, absolute: "deployments.client", "numpy.random"
    name: str  # what is taken out of it, "" for a whole module
    line: int
    module_level: bool  # runs when the module is imported
    typing_only: bool  # below `if TYPE_CHECKING:`


def sources(root: Path) -> list[Path]:
    """Without generated code, which keeps no rules of ours."""
    found = (path for package in PACKAGES for path in sorted((root / package).rglob("*.py")))
    return [path for path in found if not path.stem.endswith(("_pb2", "_pb2_grpc"))]


def violations(root: Path) -> list[str]:
    """One readable line for each import under `root` that breaks a rule."""
    return [
        f"{module} imports {complaint}  ({path.relative_to(root)}:{found.line})"
        for path in sources(root)
        for module in [module_name(path, root)]
        for found in imports_of(path, root)
        for complaint in complaints(module, found)
    ]


def complaints(module: str, found: Import) -> Iterator[str]:
    package, library = module.split(".")[0], found.target.split(".")[0]
    if library in PACKAGES:
        yield from first_party_complaints(module, package, library, found)
        return
    if library in RESERVED and not any(is_within(module, place) for place in RESERVED[library]):
        yield f"{library}; only {', '.join(sorted(RESERVED[library]))} may"
    if not found.module_level or found.typing_only:
        return
    if any(is_within(module, place) and library in banned for place, banned in NOT_AT_MODULE_LEVEL.items()):
        yield f"{library} at module level; import it inside the function that needs it"
    elif package in ONLY_AT_MODULE_LEVEL and library not in sys.stdlib_module_names | ONLY_AT_MODULE_LEVEL[package]:
        yield f"{library} at module level; {package} needs only {', '.join(sorted(ONLY_AT_MODULE_LEVEL[package]))}"


def first_party_complaints(module: str, package: str, library: str, found: Import) -> Iterator[str]:
    private = [part for part in (*found.target.split("."), found.name) if part.startswith("_")]
    if private and found.target != module:
        yield f"{private[0]} of {found.target}; a _name belongs to its file"
    if found.target in ENTRY_POINTS:
        yield f"{found.target}; nothing imports an entry point"
    elif is_within(found.target, LAST_LAYER) and not is_within(module, LAST_LAYER) and module not in ENTRY_POINTS:
        yield f"{found.target}; only entry points import the commands"
    elif package != library:
        allowed = BETWEEN[package] | BETWEEN_EXCEPTIONS.get(".".join(module.split(".")[:2]), set())
        if not any(is_within(found.target, name) for name in allowed):
            yield f"{found.target}; {package} may import {', '.join(sorted(allowed)) or 'no other package of ours'}"
    else:
        mine, theirs = layer_of(module), layer_of(found.target)
        if -1 in (mine, theirs):
            yield f"{found.target}; one of the two is in no layer: give it a place in LAYERS"
            return
        if mine is None or theirs is None or part_of(module) == part_of(found.target):
            return
        if theirs >= mine:
            where = "a higher layer" if theirs > mine else "another subpackage of the same layer"
            yield f"{found.target}, which is in {where}: see LAYERS"


def part_of(module: str) -> str:
    """The subpackage, or the module at the root of its package: `training.rollouts`, `training.types`."""
    return ".".join(module.split(".")[:2])


def layer_of(module: str) -> int | None:
    """Position in LAYERS; None for a package itself, -1 for a part that no layer names."""
    parts = module.split(".")
    if len(parts) < 2:
        return None
    for position, layer in enumerate(LAYERS[parts[0]]):
        if parts[1] in layer.split():
            return position
    return -1


def cycles(root: Path) -> list[str]:
    """Each circle of modules once, as `a -> b -> a`, with imports inside functions counted."""
    graph = {
        module_name(path, root): sorted(
            {found.target for found in imports_of(path, root) if found.target.split(".")[0] in PACKAGES}
            - {module_name(path, root)}
        )
        for path in sources(root)
    }
    found: dict[frozenset[str], str] = {}
    for component in strongly_connected(graph):
        start = min(component)
        way = shortest_way_back(graph, start, component)
        rest = sorted(component - set(way))
        found[frozenset(component)] = " -> ".join(way) + (f" (and through {', '.join(rest)})" if rest else "")
    return sorted(found.values())


def strongly_connected(graph: Mapping[str, list[str]]) -> list[set[str]]:
    """Sets of more than one node that reach each other."""
    reach: dict[str, set[str]] = {}
    for node in graph:
        seen: set[str] = set()
        waiting = [node]
        while waiting:
            for following in graph.get(waiting.pop(), []):
                if following not in seen:
                    seen.add(following)
                    waiting.append(following)
        reach[node] = seen
    components = {frozenset(b for b in reach[a] if a in reach.get(b, ())) for a in graph if a in reach[a]}
    return [set(component) for component in components]


def shortest_way_back(graph: Mapping[str, list[str]], start: str, within: set[str]) -> list[str]:
    ways = [[start]]
    while ways:
        way = ways.pop(0)
        for following in graph[way[-1]]:
            if following == start:
                return [*way, start]
            if following in within and following not in way:
                ways.append([*way, following])
    raise AssertionError("a strongly connected component holds a way back")


def imports_of(path: Path, root: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    package = (
        module_name(path, root).split(".") if path.name == "__init__.py" else module_name(path, root).split(".")[:-1]
    )
    at_module_level = set(nodes_run_on_import(tree))
    typing_only = {
        node
        for branch in ast.walk(tree)
        if is_type_checking(branch)
        for child in branch.body  # type: ignore[attr-defined]
        for node in ast.walk(child)
    }
    for node in ast.walk(tree):
        for target, name in targets_of(node, package, root):
            line: int = node.lineno  # type: ignore[attr-defined]
            yield Import(target, name, line, node in at_module_level, node in typing_only)


def targets_of(node: ast.AST, package: list[str], root: Path) -> Iterator[tuple[str, str]]:
    match node:
        case ast.Import(names=names):
            yield from ((alias.name, "") for alias in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            above = package[: len(package) - level + 1] if level else []
            source = ".".join([*above, *([module] if module else [])])
            for alias in names:  # `from deployments import client` names a module, `from ... import PolicyError` not
                whole = f"{source}.{alias.name}"
                yield (whole, "") if is_module(whole, root) else (source, alias.name)
        case ast.Call(
            func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"), args=args
        ):
            yield from ((str(arg.value), "") for arg in args[:1] if isinstance(arg, ast.Constant))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def nodes_run_on_import(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes except the bodies of functions and of `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or is_type_checking(child):
            continue
        yield child
        yield from nodes_run_on_import(child)


def is_module(name: str, root: Path) -> bool:
    path = root.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def is_within(name: str, place: str) -> bool:
    return name == place or name.startswith(place + ".")


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def plant(root: Path, path: str, source: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(source)
