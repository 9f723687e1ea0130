"""litellm as the replicas load it, and a provider on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from deployments.engines.provider import library
from tests.unit.deployments.engines.provider.openai_server import OpenAIServer, openai_server


@pytest.fixture(scope="session")
def litellm() -> Any:
    return library.load()


@pytest.fixture
async def provider() -> AsyncIterator[OpenAIServer]:
    async with openai_server() as server:
        yield server
