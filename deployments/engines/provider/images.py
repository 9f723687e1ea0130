"""Frames as PNG in data URIs, encoded once per content: a history shows each of its frames again and again."""

from __future__ import annotations

import base64
import hashlib
import io
from threading import Lock

import numpy as np
from cachetools import LRUCache
from PIL import Image

from deployments.protocol.act import Frame


class EncodedImages:
    """Gives the data URI of a frame. The URIs of the frames that came last are kept, `max_bytes` of them in all.

    `encoded`: how many frames were encoded. May be called by several threads; two that ask for the same new frame at
    the same time may both encode it.
    """

    def __init__(self, max_bytes: int) -> None:
        self.encoded = 0
        self._uris: LRUCache[bytes, str] = LRUCache(max_bytes, getsizeof=len)
        self._lock = Lock()

    @property
    def size_bytes(self) -> int:
        return int(self._uris.currsize)

    def __call__(self, frame: Frame) -> str:
        """`data:image/png;base64,...`: every pixel is as it was."""
        content = _digest(frame)
        with self._lock:
            known = self._uris.get(content)
        return self._encode(frame, content) if known is None else known

    def _encode(self, frame: Frame, content: bytes) -> str:
        uri = png_uri(frame)
        with self._lock:
            self.encoded += 1
            if len(uri) <= self._uris.maxsize:
                self._uris[content] = uri
        return uri


def png_uri(frame: Frame) -> str:
    """Compressed lightly: here the time counts, not the bytes."""
    png = io.BytesIO()
    Image.fromarray(frame).save(png, format="PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"


def _digest(frame: Frame) -> bytes:
    """One that nobody can make two frames for: a client must not choose what another one's policy is shown."""
    digest = hashlib.sha256(repr(frame.shape).encode())
    digest.update(np.ascontiguousarray(frame).data)
    return digest.digest()
