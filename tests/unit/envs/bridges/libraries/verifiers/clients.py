from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class Client(ABC):
    def __init__(self, client: Any) -> None:
        self.client = client

    @abstractmethod
    def setup_client(self, config: Any) -> Any: ...

    @abstractmethod
    async def close(self) -> None: ...
