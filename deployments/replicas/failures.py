"""Failures as answers: what a replica returns instead of raising, because types get lost between Serve processes."""

from __future__ import annotations

from deployments.errors import PolicyError
from deployments.protocol.generate import GenerateFailure


def failure(request_id: str, error: PolicyError) -> GenerateFailure:
    return GenerateFailure(request_id, error.kind, error.message, error.retry_after_s, error.rate_limit)
