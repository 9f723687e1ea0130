"""The files in deploy/: read by a parser or a schema, and compared with the code that they start."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema
from typer.main import get_command

from configs.serving import GrpcConfig, HttpConfig, ServeConfig
from deployments.app import THROUGHPUT_SWITCHES
from deployments.protocol import policy_pb2
from deployments.transports.grpc_server import SERVICER
from training.commands.app import app

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def serve_config(arguments: list[str]) -> ServeConfig:
    """The configuration of a `rayward serve ...`, once its options are those of the command."""
    assert arguments[0] == "serve"
    serve = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    options = serve.make_context("serve", list(arguments[1:])).params
    return ServeConfig.load(options["config"], options["overrides"])


# -- Serve's configuration file ----------------------------------------------------------------------------------------


def built(deployed: dict[str, Any]) -> ServeConfig:
    """What the application builder makes of the arguments in a Serve config file."""
    [application] = deployed["applications"]
    arguments = dict(application["args"])
    overrides = [f"{key}={value}" for key, value in arguments.items() if key != "config"]
    return ServeConfig.load(arguments["config"], overrides)


def known_keys(model: type, data: Any) -> None:
    """Serve ignores keys that it does not know: none of ours may be among them."""
    assert set(data) <= set(model.model_fields), set(data) - set(model.model_fields)  # type: ignore[attr-defined]


@pytest.fixture
def deployed() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((DEPLOY / "serve.yaml").read_text())
    return data


def test_serve_takes_the_file_and_knows_every_key_in_it(deployed: dict[str, Any]) -> None:
    schema = ServeDeploySchema.model_validate(deployed)

    known_keys(ServeDeploySchema, deployed)
    known_keys(type(schema.http_options), deployed["http_options"])
    known_keys(type(schema.grpc_options), deployed["grpc_options"])
    known_keys(type(schema.logging_config), deployed["logging_config"])
    known_keys(type(schema.applications[0]), deployed["applications"][0])


def test_the_application_of_the_file_can_be_imported_and_takes_its_arguments(deployed: dict[str, Any]) -> None:
    module, _, name = deployed["applications"][0]["import_path"].partition(":")

    assert callable(getattr(sys.modules.get(module) or __import__(module, fromlist=[name]), name))
    assert built(deployed).policies[0].name == "policy"


def test_the_application_is_told_where_serve_listens_and_asks_for_keys(deployed: dict[str, Any]) -> None:
    config = built(deployed)

    assert (config.http.host, config.http.port) == (deployed["http_options"]["host"], deployed["http_options"]["port"])
    assert config.http.root_path == deployed["applications"][0]["route_prefix"]
    assert config.grpc is not None
    assert deployed["grpc_options"] == {"port": config.grpc.port, "grpc_servicer_functions": [SERVICER]}
    assert config.access.keys_variable == "RAYWARD_API_KEYS"


# -- KubeRay -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def service() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((DEPLOY / "kuberay.yaml").read_text())
    return data


def pods(service: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = service["spec"]["rayClusterConfig"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_kubernetes_serves_what_serve_deploy_serves(service: dict[str, Any], deployed: dict[str, Any]) -> None:
    assert (service["apiVersion"], service["kind"]) == ("ray.io/v1", "RayService")
    assert set(service["spec"]) == {"serveConfigV2", "rayClusterConfig"}
    assert yaml.safe_load(service["spec"]["serveConfigV2"]) == deployed


def test_the_cluster_has_the_ray_that_is_locked(service: dict[str, Any]) -> None:
    locked = re.search(r"^ray==(\S+)$", (ROOT / "requirements/gpu.lock").read_text(), re.MULTILINE)

    assert locked is not None
    assert service["spec"]["rayClusterConfig"]["rayVersion"] == locked[1]


def test_every_pod_has_the_switches_the_keys_and_no_root(service: dict[str, Any], deployed: dict[str, Any]) -> None:
    for pod in pods(service):
        [container] = pod["containers"]
        plain = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
        secret = {entry["name"] for entry in container["env"] if "secretKeyRef" in entry.get("valueFrom", {})}
        assert plain == THROUGHPUT_SWITCHES
        assert deployed["applications"][0]["args"]["access.keys_variable"] in secret
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert container["resources"]["requests"] == container["resources"]["limits"]


def test_a_worker_pod_has_what_one_replica_reserves(service: dict[str, Any], deployed: dict[str, Any]) -> None:
    [policy] = built(deployed).policies
    [group] = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    custom = yaml.safe_load(yaml.safe_load(group["rayStartParams"]["resources"]))

    assert policy.replicas.resources.items() <= custom.items()
    assert float(limits["cpu"]) >= policy.replicas.num_cpus
    assert int(limits["nvidia.com/gpu"]) == policy.engine.gpus


# -- Dockerfile and compose --------------------------------------------------------------------------------------------

INSTRUCTIONS = {
    "FROM", "RUN", "WORKDIR", "COPY", "ENV", "VOLUME", "USER", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL", "ENTRYPOINT",
    "CMD",
}  # fmt: skip


@dataclass
class Stage:
    """One stage of a Dockerfile: what it begins with, and its instructions."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def last(self, instruction: str) -> str | None:
        return next((value for name, value in reversed(self.steps) if name == instruction), None)


@pytest.fixture
def stages() -> dict[str, Stage]:
    lines = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.strip().startswith("#")]
    found: dict[str, Stage] = {}
    for instruction in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        if not instruction.strip():
            continue
        name, _, value = instruction.partition(" ")
        assert name in INSTRUCTIONS, instruction
        if name == "FROM":
            base, as_, stage = value.split()
            assert as_ == "AS"
            current = found[stage] = Stage(stage, base)
        else:
            current.steps.append((name, value))
    return found


def inherited(stages: dict[str, Stage], name: str, instruction: str) -> str:
    stage = stages[name]
    value = stage.last(instruction)
    return value if value is not None else inherited(stages, stage.base, instruction)


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_an_image_is_made_from_its_lock_and_holds_no_build_tools_of_another(
    stages: dict[str, Stage], target: str
) -> None:
    assert stages[f"build-{target}"].last("RUN") == f"make setup ACCELERATOR={target}"
    assert (ROOT / f"requirements/{target}.lock").is_file()
    assert stages[target].last("COPY") == f"--from=build-{target} /opt/rayward /opt/rayward"
    assert inherited(stages, f"build-{target}", "WORKDIR") == "/opt/rayward"


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_an_image_runs_without_root_is_watched_and_ends_in_order(stages: dict[str, Stage], target: str) -> None:
    assert inherited(stages, target, "USER") == "rayward"
    assert "urlopen('http://127.0.0.1:8000/health'" in inherited(stages, target, "HEALTHCHECK")
    assert inherited(stages, target, "STOPSIGNAL") == "SIGINT"


def test_the_command_of_the_image_is_one_that_rayward_takes(stages: dict[str, Stage]) -> None:
    assert yaml.safe_load(inherited(stages, "cpu", "ENTRYPOINT")) == ["rayward"]

    config = serve_config(yaml.safe_load(inherited(stages, "cpu", "CMD")))

    assert config.grpc is not None
    assert inherited(stages, "cpu", "EXPOSE") == f"{config.http.port} {config.grpc.port}"
    assert config.access.keys_required


def test_all_that_setup_needs_and_nothing_else_goes_into_the_image(stages: dict[str, Stage]) -> None:
    """As onto the nodes of cluster.yaml."""
    copied = {source for name, value in stages["source"].steps if name == "COPY" for source in value.split()[:-1]}
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    mounted = yaml.safe_load((ROOT / "cluster.yaml").read_text())["file_mounts"].values()

    assert copied == {path.removeprefix("./") for path in mounted}
    assert ignored[1] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


@pytest.fixture
def compose() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return data


def test_compose_builds_the_targets_and_starts_what_rayward_takes(
    compose: dict[str, Any], stages: dict[str, Stage]
) -> None:
    for target in ("cpu", "gpu"):
        service = compose["services"][target]
        assert service["build"] == {"context": "..", "dockerfile": "deploy/Dockerfile", "target": target}
        assert target in stages
        command = [re.sub(r"\$\{\w+:-(.*)\}", r"\1", word) for word in service["command"]]
        config = serve_config(command)
        [secret] = service["secrets"]
        assert str(config.access.keys_file) == f"/run/secrets/{secret}"
        assert config.grpc is not None
        assert config.grpc.port == GrpcConfig().port
        assert secret in compose["secrets"]


def test_only_the_tls_terminator_can_be_reached_from_outside(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {"tls": ["443:443"]}


def test_compose_finds_what_it_mounts(compose: dict[str, Any]) -> None:
    made_by_users = {"./tls", "./rayward_keys", "provider.env"}
    mounts = [volume.split(":")[0] for volume in compose["services"]["tls"]["volumes"]]

    assert [path for path in mounts if path not in made_by_users and not (DEPLOY / path).is_file()] == []
    text = (DEPLOY / "compose.yaml").read_text().partition("x-rayward")[0]
    assert all(path.removeprefix("./") in text for path in made_by_users), "the file says how to make them"


# -- nginx -------------------------------------------------------------------------------------------------------------

Directive = tuple[list[str], list[Any]]  # words, and the directives of its block


def directives(tokens: list[str]) -> list[Directive]:
    """nginx's grammar: words up to `;`, or up to a block in braces."""
    found: list[Directive] = []
    words: list[str] = []
    while tokens:
        token = tokens.pop(0)
        if token == "}":
            assert not words, words
            return found
        if token == ";":
            found.append((words, []))
            words = []
        elif token == "{":
            found.append((words, directives(tokens)))
            words = []
        else:
            words.append(token)
    assert not words, words
    return found


def block(inside: list[Directive], *names: str) -> list[Directive]:
    return next(inner for words, inner in inside if words == list(names))


def values(inside: list[Directive], name: str) -> list[list[str]]:
    return [words[1:] for words, _ in inside if words[0] == name]


def size_bytes(text: str) -> int:
    return int(text[:-1]) * {"k": 2**10, "m": 2**20}[text[-1]] if text[-1] in "km" else int(text)


@pytest.fixture
def server() -> list[Directive]:
    text = re.sub(r"#.*", "", (DEPLOY / "nginx.conf").read_text())
    opened, closed = text.count("{"), text.count("}")
    assert opened == closed
    tokens = re.findall(r"'[^']*'|[{};]|[^\s{};]+", text)
    return block(block(directives(tokens), "http"), "server")


def test_tls_is_modern_and_takes_http_2(server: list[Directive]) -> None:
    assert values(server, "listen") == [["443", "ssl"]]
    assert values(server, "http2") == [["on"]]
    assert values(server, "ssl_protocols") == [["TLSv1.2", "TLSv1.3"]]


def test_a_websocket_is_passed_on_and_a_streamed_answer_not_held_back(server: list[Directive]) -> None:
    headers = dict(values(server, "proxy_set_header"))
    location = block(server, "location", "/")

    assert (headers["Upgrade"], headers["Connection"]) == ("$http_upgrade", "$connection_upgrade")
    assert values(server, "proxy_http_version") == [["1.1"]]
    assert values(location, "proxy_buffering") == [["off"]]
    assert values(location, "proxy_set_header") == [], "one here would switch off all those of the server"
    assert values(location, "proxy_pass") == [[f"http://$application:{HttpConfig().port}"]]


def test_grpc_goes_to_the_service_of_robots(server: list[Directive]) -> None:
    [service] = policy_pb2.DESCRIPTOR.services_by_name.values()
    location = block(server, "location", f"/{service.full_name}/")
    assert values(location, "grpc_pass") == [[f"grpc://$application:{GrpcConfig().port}"]]


def test_the_terminators_bounds_lie_above_the_applications(server: list[Directive]) -> None:
    default = ServeConfig.model_fields["max_body_bytes"].default

    [[limit]] = values(server, "client_max_body_size")
    assert size_bytes(limit) > default
    [[limit]] = values(block(server, "location", "/robot_inference.RobotPolicyService/"), "client_max_body_size")
    assert size_bytes(limit) == 0, "a stream of observations is one body without an end"


def test_a_client_cannot_say_where_it_comes_from(server: list[Directive]) -> None:
    assert dict(values(server, "proxy_set_header"))["X-Forwarded-For"] == "$remote_addr"


# -- systemd -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def unit() -> str:
    return (DEPLOY / "rayward.service").read_text()


def setting(unit: str, name: str) -> str:
    [value] = re.findall(rf"^{name}=(.*)$", unit, re.MULTILINE)
    return str(value)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_finds_nothing_wrong_with_the_unit(unit: str, tmp_path: Path) -> None:
    """With a program and a page that are there: the real ones are where the unit says on the machine it is for."""
    here = unit.replace("/opt/rayward/.venv/bin/rayward", sys.executable).replace("/opt/rayward/README.md", __file__)
    file = tmp_path / "rayward.service"
    file.write_text(here)

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True, timeout=60
    )

    said = [line for line in (done.stdout + done.stderr).splitlines() if "rayward.service" in line]
    assert (done.returncode, said) == (0, []), done.stderr


def test_the_unit_starts_what_rayward_takes(unit: str) -> None:
    program, *arguments = shlex.split(setting(unit, "ExecStart"))
    arguments[arguments.index("/etc/rayward/serve.yaml")] = "configs/serve/qwen_0_5b_a100.yaml"

    assert program.endswith(".venv/bin/rayward")
    assert serve_config(arguments).http.host == "127.0.0.1"


def test_the_unit_ends_the_command_as_ctrl_c_does(unit: str) -> None:
    """The command hears SIGINT, ends what it started and exits with 130."""
    assert [setting(unit, name) for name in ("KillSignal", "KillMode", "SuccessExitStatus")] == [
        "SIGINT",
        "mixed",
        "130",
    ]


# -- all ---------------------------------------------------------------------------------------------------------------


def test_no_file_holds_a_key() -> None:
    texts = [file.read_text() for file in DEPLOY.iterdir()]
    assert not [
        text for text in texts if re.search(r"rw_[a-z0-9-]+_[0-9a-f]{16}|\$argon2id\$|sk-[A-Za-z0-9]{16}", text)
    ]
