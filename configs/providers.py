"""What limits the calls of API providers (rate_limits.yaml), and what the environment says about them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from configs.base import ConfigError, Strict, explain, read_yaml
from configs.policies import ProviderPolicy

Number = TypeVar("Number", int, float)


class ModelLimits(Strict):
    """What a provider allows for one model, over all replicas together; 0: unlimited."""

    requests_per_minute: int = Field(0, ge=0, description="Calls begun in any 60 seconds.")
    tokens_per_minute: int = Field(0, ge=0, description="Tokens of prompts and answers in any 60 seconds.")
    concurrent_requests: int = Field(0, ge=0, description="Calls under way at the same time.")


RateLimits = dict[str, dict[str, ModelLimits]]  # provider -> model -> limits


def load_rate_limits(path: Path) -> RateLimits:
    """Reads rate_limits.yaml in either of its spellings, `provider: {model: {...}}` and `provider: {models: {model:
    {...}}}`. Raises ConfigError, also for a key that no limit has."""
    if not path.is_file():
        raise ConfigError(f"no file of rate limits at {path}")
    return {provider: _models(provider, models, path) for provider, models in read_yaml(path).items()}


def _models(provider: str, models: Any, path: Path) -> dict[str, ModelLimits]:
    if not isinstance(models, dict):
        raise ConfigError(f"{path}: {provider} must hold models with their limits")
    inner = models.get("models")
    nested = isinstance(inner, dict) and all(isinstance(limits, dict) for limits in inner.values())
    if nested and len(models) > 1:
        other = ", ".join(sorted(set(models) - {"models"}))
        raise ConfigError(f"{path}: {provider} mixes both spellings: move {other} below models")
    chosen = inner if isinstance(inner, dict) and nested else models
    return {str(name): _limits(f"{provider}.{name}", limits, path) for name, limits in chosen.items()}


def _limits(where: str, limits: Any, path: Path) -> ModelLimits:
    if not isinstance(limits, dict):
        near = difflib.get_close_matches(where.rpartition(".")[2], ModelLimits.model_fields, n=1)
        hint = f"; {near[0]} belongs to a model" if near else ""
        raise ConfigError(f"{path}: {where} must be a model with its limits{hint}")
    try:
        return ModelLimits.model_validate(limits)
    except ValidationError as error:
        raise ConfigError(explain(error, ModelLimits, f"{path}: {where}")) from error


def limits_for(limits: RateLimits, provider: str, model: str) -> ModelLimits | None:
    """What the file says about a model, by its name with or without the provider; None: nothing."""
    models = limits.get(provider, {})
    bare = model.removeprefix(f"{provider}/")
    return models.get(bare) or models.get(f"{provider}/{bare}")


def key_variable(provider: str) -> str:
    """The environment variable with a provider's API key.

    >>> key_variable("openai"), key_variable("together-ai")
    ('OPENAI_API_KEY', 'TOGETHER_AI_API_KEY')
    """
    return f"{provider.upper().replace('-', '_').replace('.', '_')}_API_KEY"


def check_keys(limits: RateLimits, environment: Mapping[str, str]) -> None:
    """Raises ConfigError when a provider that the file names has no key: the first call would tell it a user."""
    missing = [key_variable(provider) for provider in limits if not environment.get(key_variable(provider), "").strip()]
    if missing:
        raise ConfigError(
            f"rate_limits.yaml names providers without an API key: set {', '.join(missing)} in the environment of the "
            "replicas, or take the provider out of the file"
        )


def provider_error(policy: ProviderPolicy, environment: Mapping[str, str]) -> str | None:
    """Why a policy behind an API cannot be served, as far as its file of limits and the environment tell."""
    if policy.rate_limits is None:
        return None
    try:
        check_keys(load_rate_limits(policy.rate_limits), environment)
    except ConfigError as error:
        return str(error)
    return None


def with_environment(policy: ProviderPolicy, environment: Mapping[str, str]) -> ProviderPolicy:
    """The policy as VLM_MODEL, CONCURRENCY_LIMIT and TIMEOUT (seconds) change it, where they are set. Raises
    ConfigError for a value that is none."""
    changes: dict[str, Any] = {}
    if model := environment.get("VLM_MODEL", "").strip():
        changes["model"] = model
    if text := environment.get("CONCURRENCY_LIMIT", "").strip():
        changes["concurrency"] = _number("CONCURRENCY_LIMIT", text, int)
    if text := environment.get("TIMEOUT", "").strip():
        changes["timeout_s"] = _number("TIMEOUT", text, float)
    return ProviderPolicy.model_validate(policy.model_dump() | changes)


def _number(name: str, text: str, kind: type[Number]) -> Number:
    try:
        value = kind(text)
    except ValueError:
        value = kind(0)
    if not 0 < value < 1e6:
        raise ConfigError(f"{name} in the environment must be a number above 0, not {text!r}")
    return value
