"""rate_limits.yaml in both spellings, and what the environment says about providers."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.base import ConfigError
from configs.policies import ProviderPolicy
from configs.providers import (
    ModelLimits,
    check_keys,
    key_variable,
    limits_for,
    load_rate_limits,
    provider_error,
    with_environment,
)

FLAT = """
openai:
  gpt-4o: {requests_per_minute: 500, tokens_per_minute: 30000, concurrent_requests: 8}
  gpt-4o-mini: {requests_per_minute: 0}
gemini:
  gemini-2.0-flash: {tokens_per_minute: 1000}
"""
NESTED = """
openai:
  models:
    gpt-4o: {requests_per_minute: 500, tokens_per_minute: 30000, concurrent_requests: 8}
    gpt-4o-mini: {requests_per_minute: 0}
gemini:
  models:
    gemini-2.0-flash: {tokens_per_minute: 1000}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rate_limits.yaml"


@pytest.mark.parametrize("text", [FLAT, NESTED], ids=["flat", "nested"])
def test_both_spellings_mean_the_same(file: Path, text: str) -> None:
    file.write_text(text)

    limits = load_rate_limits(file)

    assert limits == {
        "openai": {
            "gpt-4o": ModelLimits(requests_per_minute=500, tokens_per_minute=30000, concurrent_requests=8),
            "gpt-4o-mini": ModelLimits(),
        },
        "gemini": {"gemini-2.0-flash": ModelLimits(tokens_per_minute=1000)},
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("openai: {gpt-4o: {request_per_minute: 5}}", "Did you mean 'requests_per_minute'"),
        ("openai: {models: {gpt-4o: {tokens: 5}}}", "unknown key"),
        ("openai: {gpt-4o: {requests_per_minute: -1}}", "greater than or equal to 0"),
        ("openai: {requests_per_minute: 5}", "requests_per_minute belongs to a model"),
        ("openai: 5", "openai must hold models"),
        ("openai:", "openai must hold models"),
        ("openai: {models: {a: {}}, gpt-4o: {}}", "mixes both spellings: move gpt-4o below models"),
        ("- openai", "must hold a mapping"),
    ],
)
def test_what_is_neither_spelling_is_refused_with_its_place(file: Path, text: str, complaint: str) -> None:
    file.write_text(text)

    with pytest.raises(ConfigError, match=complaint):
        load_rate_limits(file)


def test_a_missing_file_is_named(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"rate_limits\.yaml"):
        load_rate_limits(file)


def test_a_model_is_found_with_and_without_its_provider(file: Path) -> None:
    file.write_text("openai: {gpt-4o: {requests_per_minute: 5}, openai/o3: {requests_per_minute: 7}}")
    limits = load_rate_limits(file)

    found = [limits_for(limits, "openai", model) for model in ("gpt-4o", "openai/gpt-4o", "o3", "openai/o3")]

    assert [each.requests_per_minute for each in found if each] == [5, 5, 7, 7]
    assert limits_for(limits, "openai", "gpt-5") is None
    assert limits_for(limits, "gemini", "gpt-4o") is None


def test_a_provider_in_the_file_without_its_key_stops_the_start(file: Path) -> None:
    file.write_text(FLAT)
    limits = load_rate_limits(file)

    with pytest.raises(ConfigError, match=r"set GEMINI_API_KEY in the environment") as caught:
        check_keys(limits, {"OPENAI_API_KEY": "a-key-of-openai", "GEMINI_API_KEY": " "})

    assert "a-key-of-openai" not in str(caught.value)
    check_keys(limits, {"OPENAI_API_KEY": "k", "GEMINI_API_KEY": "k"})


def test_a_providers_key_is_named_after_it() -> None:
    assert key_variable("anthropic") == "ANTHROPIC_API_KEY"
    assert key_variable("together_ai") == "TOGETHER_AI_API_KEY"


def test_the_environment_wins_as_its_users_know_it() -> None:
    policy = ProviderPolicy(kind="provider", model="openai/gpt-4o", concurrency=4, timeout_s=10)

    changed = with_environment(policy, {"VLM_MODEL": "gemini/flash", "CONCURRENCY_LIMIT": "2", "TIMEOUT": "7.5"})

    assert (changed.model, changed.concurrency, changed.timeout_s) == ("gemini/flash", 2, 7.5)
    assert with_environment(policy, {"VLM_MODEL": "", "TIMEOUT": " "}) == policy


@pytest.mark.parametrize(
    "environment",
    [
        {"TIMEOUT": "soon"},
        {"TIMEOUT": "nan"},
        {"TIMEOUT": "-1"},
        {"CONCURRENCY_LIMIT": "0"},
        {"CONCURRENCY_LIMIT": "1.5"},
    ],
)
def test_a_value_that_is_no_number_above_zero_is_refused(environment: dict[str, str]) -> None:
    policy = ProviderPolicy(kind="provider", model="openai/gpt-4o")

    with pytest.raises(ConfigError, match=f"{next(iter(environment))} in the environment must be a number above 0"):
        with_environment(policy, environment)


def test_what_would_stop_a_replica_can_be_told_before(file: Path) -> None:
    file.write_text(FLAT)
    policy = ProviderPolicy(kind="provider", model="openai/gpt-4o", rate_limits=file)

    assert "set OPENAI_API_KEY, GEMINI_API_KEY" in str(provider_error(policy, {}))
    assert provider_error(policy, {"OPENAI_API_KEY": "k", "GEMINI_API_KEY": "k"}) is None
    assert provider_error(ProviderPolicy(kind="provider", model="m"), {}) is None
    file.unlink()
    assert "no file of rate limits" in str(provider_error(policy, {}))
