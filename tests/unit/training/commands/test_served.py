"""What a user reads when an application starts."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from configs.serving import ServeConfig
from training.commands import served

TEXT = {"name": "text", "model": "tiny:text"}
ARM = {"name": "arm", "model": "tiny:vision", "act": {"arm": {}}}
ROBOT = {"name": "robot", "kind": "chunks", "checkpoint": "models/robot"}


def config(*policies: dict[str, Any]) -> ServeConfig:
    return ServeConfig.parse({"policies": list(policies)})


def test_only_routes_that_a_policy_answers_are_listed() -> None:
    shown = "\n".join(served.routes(config(TEXT)))
    assert "/v1/chat/completions" in shown
    assert "/act" not in shown
    assert "/get_action" not in shown
    assert "POST /act" in "\n".join(served.routes(config(ROBOT)))
    assert "/v1/" not in "\n".join(served.routes(config(ROBOT)))


def test_how_to_choose_is_told_where_there_is_a_choice() -> None:
    assert not any("?policy=" in route for route in served.routes(config(ARM)))
    assert any("?policy=" in route for route in served.routes(config(ARM, ROBOT)))


def test_the_table_says_what_each_policy_is_and_answers() -> None:
    written = io.StringIO()
    Console(width=200, file=written).print(served.policies(config(TEXT, ARM, ROBOT)))
    text, arm, robot = (line for line in written.getvalue().splitlines() if " s " in line)
    assert "tiny:text" in text
    assert "/act" not in text
    assert "/v1/*, /act" in arm
    assert "models/robot" in robot
    assert "chunks" in robot


def test_the_limits_are_those_of_the_configuration() -> None:
    assert served.limits(config(TEXT)).startswith("a body of 32 MiB, an image of 4.19 megapixels, 2048 requests")
