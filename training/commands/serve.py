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

    from training.cluster import application, memory, ports, ray_session

    settings = ServeConfig.load(config, overrides)
    if settings.check_memory and ray_session.starts_here():
        memory.check(memory.of_serving(settings))
    for policy in settings.policies:
        application.check_servable(policy)
    if ray_session.starts_here() and settings.http.port:
        ports.check_port(settings.http.host, settings.http.port)
    with peak_memory(), ray_session.ray_session(), application.application(settings):
        address = f"http://{settings.http.host}:{application.http_port()}{settings.http.root_path.rstrip('/')}"
        console.print(f"ready: {address}  policies: {', '.join(p.name for p in settings.policies)}")
        console.print("routes: /health /metrics /v1/models /v1/completions /v1/chat/completions /tokenize /detokenize")
        threading.Event().wait()
