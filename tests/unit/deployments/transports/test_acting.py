"""Every policy can be asked through the one object of the transports."""

from __future__ import annotations

from typing import Any

import pytest

from configs.serving import ServeConfig
from deployments.transports import acting

CONFIG = ServeConfig.parse(
    {
        "policies": [
            {"name": "vision", "model": "m", "act": {"arm": {}}},
            {"name": "robot", "kind": "chunks", "checkpoint": "c"},
            {"name": "api", "kind": "provider", "model": "openai/gpt-4o", "act": {"arm": {}}},
        ]
    }
)


class Handle:
    def __init__(self) -> None:
        self.methods: list[str] = []

        self.remote = None

    def options(self, method_name: str, stream: bool = False) -> Handle:
        self.methods.append(method_name)
        return self


def test_models_that_talk_are_asked_to_chat_and_robot_policies_to_act(monkeypatch: pytest.MonkeyPatch) -> None:
    built: dict[str, Any] = {}
    monkeypatch.setattr(acting, "Acting", lambda config, chats, chunks: built.update(chats=chats, chunks=chunks))
    handles = {policy.name: Handle() for policy in CONFIG.policies}

    acting.acting_of(CONFIG, handles)

    assert set(built["chats"]) == {"vision", "api"}
    assert set(built["chunks"]) == {"robot"}
    assert handles["vision"].methods == ["chat"]
    assert set(handles["robot"].methods) == {"act", "shape"}
