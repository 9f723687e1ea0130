"""What a chat message holds."""

from __future__ import annotations

import numpy as np
import pytest

from training.rendering.messages import ContentUnsupported, content_of, images_of, template_message

IMAGE = {"type": "image", "image": np.zeros((2, 3, 3), np.uint8)}
TEXT = {"type": "text", "text": "look"}


def test_text_and_the_sizes_of_images_are_told_apart() -> None:
    assert content_of({"role": "user", "content": "look"}) == ("look", ())
    assert content_of({"role": "user", "content": [IMAGE, IMAGE, TEXT]}) == ("look", ((2, 3), (2, 3)))


@pytest.mark.parametrize(("content", "named"), [([TEXT, IMAGE], "text, image"), ([{"type": "audio"}, TEXT], "audio")])
def test_another_order_or_kind_of_content_is_refused_by_name(content: list[dict[str, object]], named: str) -> None:
    with pytest.raises(ContentUnsupported, match=f"a user message holds {named}: images and then text"):
        content_of({"role": "user", "content": content})


def test_images_come_in_the_order_of_the_messages() -> None:
    second = {"type": "image", "image": np.ones((2, 2, 3), np.uint8)}
    found = images_of([{"role": "user", "content": [IMAGE, TEXT]}, {"role": "user", "content": [second, TEXT]}])
    assert [image.shape for image in found] == [(2, 3, 3), (2, 2, 3)]


def test_a_message_without_images_is_plain_text_which_every_template_takes() -> None:
    assert template_message("user", "look", 0) == {"role": "user", "content": "look"}
    assert template_message("user", "look", 1)["content"] == [{"type": "image"}, {"type": "text", "text": "look"}]
