"""What a chat message holds: text, or images and then text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.base import UserError
from deployments.storage.vision import Size
from training.rendering.ids_cache import Key

Message = Mapping[str, Any]


class ContentUnsupported(UserError):
    """A message holds something that cannot be rendered, such as an image for a model that reads none."""


def images_of(messages: Sequence[Message]) -> tuple[NDArray[np.uint8], ...]:
    """The images that messages show, [H, W, 3] each, in their order."""
    parts = [part for message in messages if not isinstance(message["content"], str) for part in message["content"]]
    return tuple(part["image"] for part in parts if part.get("type") == "image")


def content_of(message: Message) -> tuple[str, tuple[Size, ...]]:
    """Text, and the size of each image, which stand before it. Raises ContentUnsupported."""
    content = message["content"]
    if isinstance(content, str):
        return content, ()
    kinds = [str(part.get("type")) for part in content]
    other = sorted({*kinds} - {"text", "image"})
    if other or kinds != sorted(kinds):  # "image" < "text"
        raise ContentUnsupported(
            f"a {message['role']} message holds {', '.join(other or kinds)}: images and then text can be rendered"
        )
    text = "".join(str(part["text"]) for part in content if part["type"] == "text")
    return text, tuple(_size(part["image"]) for part in content if part["type"] == "image")


def _size(image: NDArray[np.uint8]) -> Size:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ContentUnsupported(f"an image is [height, width, 3] uint8, got {list(image.shape)} {image.dtype}")
    return image.shape[0], image.shape[1]


def templated(key: Key) -> list[Message]:
    """The messages of a key as a chat template takes them."""
    return [template_message(role, content, len(sizes)) for role, content, sizes in key]


def template_message(role: str, content: str, images: int) -> Message:
    """One message as a chat template takes it: plain text, or images and then the text."""
    if not images:
        return {"role": role, "content": content}
    return {"role": role, "content": [{"type": "image"}] * images + [{"type": "text", "text": content}]}
