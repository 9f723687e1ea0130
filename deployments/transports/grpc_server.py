"""How Serve's gRPC servers are started: what `serve.start` is told, and what it has no setting for."""

from __future__ import annotations

from typing import Any

from configs.serving import GrpcConfig
from deployments.replicas.node_port import listen_at_node

SERVICER = "deployments.protocol.policy_pb2_grpc.add_RobotPolicyServiceServicer_to_server"
MOST_MESSAGE_BYTES = 100 * 2**20  # robots' clients are set to this, too
SHORTEST_PING_MS = 5_000  # robots send one each 10 s; by default gRPC closes a connection with more than one in 5 min
ON_START = f"{__name__}:prepared"
# Read by Serve's processes where Ray starts.
SWITCHES = {
    "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(MOST_MESSAGE_BYTES),
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": ON_START,
}


def options(grpc: GrpcConfig) -> Any:
    """Serve's gRPCOptions. With HAProxy its frontend listens at the host of HTTP."""
    from ray.serve.config import gRPCOptions

    return gRPCOptions(port=grpc.port, grpc_servicer_functions=[SERVICER], enable_reflection=grpc.reflection)


def prepared() -> list[Any]:
    """Serve calls this in each proxy and in each ingress replica before its servers start (a hook for HTTP middleware,
    of which there is none here). It lets their gRPC servers take robots' pings, and has them listen at the node's own
    address, also for the calls of other replicas: Serve itself binds them to all interfaces, also where Ray is on
    loopback."""
    import ray
    from ray.serve._private import constants, default_impl

    ping = ("grpc.http2.min_ping_interval_without_data_ms", SHORTEST_PING_MS)
    if ping not in constants.DEFAULT_GRPC_SERVER_OPTIONS:
        constants.DEFAULT_GRPC_SERVER_OPTIONS.append(ping)
    default_impl.add_grpc_address = _bound_to(ray.util.get_node_ip_address())
    listen_at_node()
    return []


def _bound_to(host: str) -> Any:
    def add_grpc_address(grpc_server: Any, server_address: str) -> None:
        port = server_address.rpartition(":")[2]
        grpc_server.add_insecure_port(f"{host}:{port}")

    return add_grpc_address
