"""`rayward serve`."""

from __future__ import annotations

from configs.serving import ServeConfig
from training.commands.options import (
    ConfigOption,
    SetOption,
    console,
    peak_memory,
)


def serve(config: ConfigOption, overrides: SetOption = []) -> None:  # noqa: B006
    """Starts the Serve application and blocks until Ctrl-C."""
    import threading
    import time

    from deployments.access.keys import Keys
    from training.cluster import application, memory, ports, ray_session
    from training.commands import served

    settings = application.with_made_models(ServeConfig.load(config, overrides))
    if settings.check_memory and ray_session.starts_here():
        memory.check(memory.of_serving(settings))
    for policy in settings.policies:
        application.check_servable(policy)
    if ray_session.starts_here():
        Keys.of(settings.access)  # the ingress would fail three times, a minute later
        settings = application.with_free_ports(settings)
        for port in [settings.http.port, *([settings.grpc.port] if settings.grpc is not None else [])]:
            ports.check_port(settings.http.host, port)
    began = time.monotonic()
    console.print(f"starting: {', '.join(policy.name for policy in settings.policies)}")
    with peak_memory(), ray_session.ray_session(), application.application(settings):
        address = f"http://{settings.http.host}:{application.http_port()}{settings.http.root_path.rstrip('/')}"
        console.print(served.policies(settings))
        for route in served.routes(settings):
            console.print(f"  {route}", markup=False, highlight=False)
        if settings.grpc is not None:
            console.print(f"  gRPC RobotPolicyService at {settings.http.host}:{settings.grpc.port}", highlight=False)
        console.print(f"limits: {served.limits(settings)}", markup=False)
        console.print(f"ready after {time.monotonic() - began:.0f} s: {address}  (Ctrl-C ends it)", soft_wrap=True)
        threading.Event().wait()
