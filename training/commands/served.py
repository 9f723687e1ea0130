"""What `rayward serve` shows: the policies, the routes and the limits of an application."""

from __future__ import annotations

from rich.table import Table

from configs.policies import AnyPolicy, ChunkPolicy, PolicyConfig
from configs.serving import ServeConfig


def policies(config: ServeConfig) -> Table:
    """One row per policy."""
    shown = Table(title="policies")
    for column in ("name", "kind", "model", "replicas", "deadline", "answers"):
        shown.add_column(column, overflow="fold")
    for policy in config.policies:
        least, most = policy.replicas.min_replicas, policy.replicas.max_replicas
        source = policy.checkpoint if isinstance(policy, ChunkPolicy) else policy.model
        count = str(least) if least == most else f"{least}..{most}"
        cells = [
            policy.name,
            policy.kind,
            source,
            count,
            f"{policy.request_deadline_s:g} s",
            ", ".join(answers(policy)),
        ]
        shown.add_row(*cells)
    return shown


def answers(policy: AnyPolicy) -> list[str]:
    """The routes on which a policy can be asked."""
    found = ["/v1/*"] if isinstance(policy, PolicyConfig) else []
    if policy.acts:
        found.append("/act")
    return [*found, "/get_action"] if policy.plays else found


def routes(config: ServeConfig) -> list[str]:
    """Method and path of every route that at least one policy answers, with what it is for."""
    found = ["GET /health, GET /metrics, GET / (all routes)"]
    if any(isinstance(policy, PolicyConfig) for policy in config.policies):
        found.append("GET /v1/models, POST /v1/chat/completions, /v1/completions, /tokenize, /detokenize (OpenAI)")
    if any(policy.acts for policy in config.policies):
        found.append("POST /act, /reset (robots); WebSocket / (openpi)")
    if any(policy.plays for policy in config.policies):
        found.append("POST /get_action, /reset, WebSocket /stream (MineRL)")
    found.append("GET /policies" + (", PUT and DELETE /policies/NAME" if config.http.manage_policies else ""))
    if len(config.policies) > 1:
        found.append("a policy is named by `model` in the body, by ?policy=NAME, or by /policies/NAME/act")
    return found


def limits(config: ServeConfig) -> str:
    """What a request may take at most."""
    queued = sum(max(policy.replicas.max_queued_requests, 0) for policy in config.policies)
    pixels = max(policy.act.max_pixels for policy in config.policies)
    return (
        f"a body of {config.max_body_bytes / 1024**2:.3g} MiB, an image of {pixels / 1e6:.3g} megapixels, "
        f"{queued} requests in queues"
    )
