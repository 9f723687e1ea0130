"""`rayward serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from configs.serving import ServeConfig
from training.commands.options import (
    ConfigOption,
    SetOption,
    console,
)

if TYPE_CHECKING:
    pass


def serve(config: ConfigOption, overrides: SetOption = []) -> None:  # noqa: B006
    """Starts the Serve application and blocks until Ctrl-C."""
    import threading

    from training.cluster import application, memory, ray_session

    settings = ServeConfig.load(config, overrides)
    if settings.check_memory and ray_session.starts_here():
        memory.check(memory.of_serving(settings))
    with ray_session.ray_session(), application.application(settings):
        host, port = settings.http.host, settings.http.port
        console.print(f"ready: http://{host}:{port}  policies: {', '.join(p.name for p in settings.policies)}")
        console.print("routes: /health /metrics /v1/models /v1/completions /v1/chat/completions /tokenize /detokenize")
        threading.Event().wait()
