"""Where a replica takes the calls of other replicas."""

from __future__ import annotations

from typing import Any


def listen_at_node() -> None:
    """Has this process's replica take calls at its node's address, the one that Serve tells its callers: 127.0.0.1 on a
    Ray that listens on loopback. Serve has no setting for it and listens on all interfaces, and what it takes there are
    pickles. To be called while the replica is made: Serve opens the port afterwards."""
    from ray.serve._private import replica

    replica.add_port_to_grpc_server = _at_node


def _at_node(server: Any, address: str) -> int:
    """As `add_port_to_grpc_server`, which also knows Ray's TLS settings; of `address` only the port counts."""
    import ray
    from ray._common.network_utils import build_address
    from ray._common.tls_utils import add_port_to_grpc_server

    here = build_address(ray.util.get_node_ip_address(), address.rpartition(":")[2])
    port: int = add_port_to_grpc_server(server, here)
    return port
