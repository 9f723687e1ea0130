"""Schema of a serving configuration: the policies of the one application, and where it listens."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from configs.access import AccessConfig, listens_beyond_this_machine
from configs.base import Strict, YamlConfig
from configs.policies import PolicyConfig


class HttpConfig(Strict):
    """Where the HTTP routes listen."""

    host: str = Field("127.0.0.1", description="Address to listen at; 127.0.0.1: this machine only.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen at; 0: a free one.")
    root_path: str = Field("/", description="Prefix of all routes.")


class ServeConfig(YamlConfig):
    """The one Serve application."""

    name: str = Field("rayward", description="Name of the Serve application.")
    http: HttpConfig = Field(default_factory=HttpConfig, description="Where the HTTP routes listen.")
    access: AccessConfig = Field(default_factory=AccessConfig, description="Who may call the application.")
    policies: list[PolicyConfig] = Field(min_length=1, description="The policies, each with a name of its own.")
    check_memory: bool = Field(
        True, description="Refuse to start on this machine when the estimated memory is not available."
    )
    ingress_replicas: int = Field(1, ge=1, description="Number of ingress replicas.")
    ingress_cpus: float = Field(0.1, ge=0, description="Logical CPUs that each ingress replica reserves.")
    max_body_bytes: int = Field(
        32 * 1024 * 1024, ge=1024, description="Largest body of a request, in bytes; a larger one is answered 413."
    )

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        names = [policy.name for policy in self.policies]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"policies must have different names; used twice: {', '.join(doubled)}")
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
