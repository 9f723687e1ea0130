"""Schema of a serving configuration: the policies of the one application, and where it listens."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from configs.access import AccessConfig, listens_beyond_this_machine
from configs.base import Strict, YamlConfig
from configs.policies import AnyPolicy


class HttpConfig(Strict):
    """Where the HTTP routes listen."""

    host: str = Field("127.0.0.1", description="Address to listen at; 127.0.0.1: this machine only.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen at; 0: a free one.")
    root_path: str = Field("/", description="Prefix of all routes.")
    cors_origins: list[str] = Field(
        default_factory=list,
        description="Origins of web pages that may call from a browser, e.g. https://lab.example; *: any.",
    )
    manage_policies: bool = Field(
        False,
        description="Let callers load and unload policies while the application runs (PUT and DELETE /policies/NAME). "
        "Whoever may call may then also do that: set keys.",
    )


class GrpcConfig(Strict):
    """The gRPC service of robots (RobotPolicyService). It listens at the host of `http`."""

    port: int = Field(50051, ge=0, le=65535, description="Port to listen at; 0: a free one.")
    policy: str | None = Field(
        None, description="Policy that answers calls that name none; None: the only one that can, if there is just one."
    )
    max_message_mb: int = Field(
        100, ge=1, le=100, description="Largest message of a robot, in MiB; a larger one is INVALID_ARGUMENT."
    )
    max_unanswered: int = Field(
        32, ge=1, description="Observations of one stream that may wait for their answers before no more are read."
    )
    reflection: bool = Field(True, description="Tell tools such as grpcurl which methods there are.")


class WebSocketConfig(Strict):
    """The WebSocket protocols, on the port of `http`. Serve closes a connection with a frame of more than 16 MiB."""

    policy: str | None = Field(
        None,
        description="Policy that answers clients that name none; None: the only one that can, if there is just one.",
    )
    max_unanswered: int = Field(
        32, ge=1, description="Observations of one connection that may wait for their answers before no more are read."
    )
    send_deadline_s: float = Field(
        10.0, gt=0, description="Seconds that a client may take to receive an answer before its connection is closed."
    )


class LoadedPolicy(YamlConfig):
    """A policy that is loaded while the application runs."""

    policy: AnyPolicy = Field(description="The policy, as in a file's `policies`.")


class ServeConfig(YamlConfig):
    """The one Serve application."""

    name: str = Field("rayward", description="Name of the Serve application.")
    http: HttpConfig = Field(default_factory=HttpConfig, description="Where the HTTP routes listen.")
    grpc: GrpcConfig | None = Field(None, description="The gRPC service of robots; None: there is none.")
    websocket: WebSocketConfig = Field(default_factory=WebSocketConfig, description="The WebSocket protocols.")
    access: AccessConfig = Field(default_factory=AccessConfig, description="Who may call the application.")
    policies: list[AnyPolicy] = Field(min_length=1, description="The policies, each with a name of its own.")
    storage_path: str = Field(
        ".", description="A folder; models that are made on the spot are kept below it in models/."
    )
    check_memory: bool = Field(
        True, description="Refuse to start on this machine when the estimated memory is not available."
    )
    ingress_replicas: int = Field(1, ge=1, description="Number of ingress replicas.")
    ingress_cpus: float = Field(0.1, ge=0, description="Logical CPUs that each ingress replica reserves.")
    max_body_bytes: int = Field(
        32 * 1024 * 1024, ge=1024, description="Largest body of a request, in bytes; a larger one is answered 413."
    )
    max_json_values: int = Field(
        1_000_000,
        ge=1024,
        description="Most values in a JSON body, counted by its commas; more are answered 413. Parsing holds up all "
        "callers of an ingress for about 100 ms per million. An image as base64 or json_numpy is one value, as a "
        "nested list it is three per pixel.",
    )

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        names = [policy.name for policy in self.policies]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"policies must have different names; used twice: {', '.join(doubled)}")
        return self

    @model_validator(mode="after")
    def _defaults_exist(self) -> Self:
        names = {policy.name for policy in self.policies}
        for section, named in (("grpc", self.grpc and self.grpc.policy), ("websocket", self.websocket.policy)):
            if named is not None and named not in names:
                raise ValueError(f"{section}.policy names {named!r}, which is none of: {', '.join(sorted(names))}")
        return self

    @model_validator(mode="after")
    def _keys_where_others_can_call(self) -> Self:
        host = self.http.host
        if listens_beyond_this_machine(host) and not (self.access.keys_required or self.access.open):
            raise ValueError(
                f"http.host {host} can be reached from other machines, and no API keys are configured: make one with "
                "`rayward key new NAME --file keys.txt` and set access.keys_file to that file, or set access.open to "
                "true to answer everybody"
            )
        return self

    @model_validator(mode="after")
    def _keys_where_others_can_load(self) -> Self:
        host = self.http.host
        if self.http.manage_policies and listens_beyond_this_machine(host) and not self.access.keys_required:
            raise ValueError(
                f"http.manage_policies lets everybody who reaches {host} load and unload policies: configure API keys "
                "(access.keys_file), or set http.manage_policies to false"
            )
        return self
