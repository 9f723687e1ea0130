"""The action of a MineRL player."""

from __future__ import annotations

from deployments.protocol.game import BUTTONS, CAMERA, PlayRequest, no_op


def test_an_action_has_all_the_keys_of_the_contract() -> None:
    contract = (
        "attack back forward jump left right sneak sprint use drop inventory hotbar.1 hotbar.2 hotbar.3 hotbar.4 "
        "hotbar.5 hotbar.6 hotbar.7 hotbar.8 hotbar.9 ESC"
    )
    assert set(BUTTONS) == set(contract.split())
    assert no_op() == {**dict.fromkeys(BUTTONS, 0), CAMERA: [0.0, 0.0]}


def test_what_is_left_is_counted_from_now() -> None:
    assert PlayRequest("1", "", 100.0, "task", []).remaining_s(98.0) == 2.0
