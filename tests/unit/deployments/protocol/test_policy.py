"""The code beside policy.proto is what protoc makes of it. It is made with the oldest supported tools, because newer
runtimes take older code, and not the other way round:

    pip install grpcio-tools==1.76.0
    python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. deployments/protocol/policy.proto
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from deployments.protocol import policy_pb2 as pb

ROOT = Path(__file__).resolve().parents[4]
PROTO = "deployments/protocol/policy.proto"
# What differs between the versions of the tools, and says nothing of the protocol.
OF_THE_TOOLS = (
    (r"# Protobuf Python Version: .*", ""),
    (r"ValidateProtobufRuntimeVersion\(.*?\n\)", ""),
    (r"GRPC_GENERATED_VERSION = .*", ""),
    (r"\(object\):", ":"),
    (r"_Optional\[bool\]", "bool"),
)

# Message -> field number -> (name, type), as robots' clients were built with them.
CONTRACT = {
    "CameraImage": {1: ("image_data", "bytes"), 2: ("encoding", "string")},
    "RobotState": {1: ("state", "repeated float")},
    "ActionVector": {1: ("values", "repeated float")},
    "ObservationRequest": {
        1: ("images", "repeated CameraImage"),
        2: ("robot_state", "RobotState"),
        3: ("prompt", "string"),
        4: ("prefix_action", "repeated ActionVector"),
        5: ("delay", "int32"),
        6: ("timestamp_ns", "int64"),
        7: ("request_id", "string"),
    },
    "ActionChunkResponse": {
        1: ("action_chunk", "repeated ActionVector"),
        2: ("timestamp_ns", "int64"),
        3: ("request_id", "string"),
        4: ("inference_time_ms", "float"),
        5: ("accel", "optional float"),
    },
    "HealthCheckRequest": {},
    "HealthCheckResponse": {
        1: ("healthy", "bool"),
        2: ("status", "string"),
        3: ("model_name", "string"),
        4: ("device", "string"),
        5: ("gpu_memory_used_gb", "float"),
        6: ("gpu_memory_total_gb", "float"),
    },
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("generated")
    outputs = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I.", *outputs, PROTO], cwd=ROOT, check=True)
    return out


@pytest.mark.parametrize("name", ["policy_pb2.py", "policy_pb2.pyi", "policy_pb2_grpc.py"])
def test_the_generated_code_fits_its_source(made: Path, name: str) -> None:
    checked_in, regenerated = (folder / "deployments/protocol" / name for folder in (ROOT, made))

    assert without_versions(checked_in.read_text()) == without_versions(regenerated.read_text())


@pytest.mark.parametrize("message", CONTRACT)
def test_the_fields_are_those_of_the_contract_and_additions_stay_clear_of_them(message: str) -> None:
    file = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)
    fields = next(kind for kind in file.message_type if kind.name == message).field

    assert {field.number: (field.name, type_of(field)) for field in fields if field.number < 100} == CONTRACT[message]


def test_the_service_has_the_contracts_name_and_methods() -> None:
    (service,) = pb.DESCRIPTOR.services_by_name.values()
    kinds = {method.name: (method.client_streaming, method.server_streaming) for method in service.methods}

    assert service.full_name == "robot_inference.RobotPolicyService"
    assert kinds == {
        "GetActionChunk": (False, False),
        "StreamActionChunks": (True, True),
        "HealthCheck": (False, False),
    }


def test_the_messages_are_there_without_grpc() -> None:
    code = "import sys, deployments.protocol.policy_pb2; print('grpc' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


def without_versions(text: str) -> str:
    for pattern, replacement in OF_THE_TOOLS:
        text = re.sub(pattern, replacement, text, flags=re.DOTALL if "\\n" in pattern else 0)
    return text


def type_of(proto: descriptor_pb2.FieldDescriptorProto) -> str:
    plain = proto.type_name.rpartition(".")[2] or descriptor_pb2.FieldDescriptorProto.Type.Name(proto.type)[5:].lower()
    before = "repeated " if proto.label == proto.LABEL_REPEATED else "optional " if proto.proto3_optional else ""
    return before + plain
