"""An instruction as numbers, without a tokenizer: words, hashed into a table. numpy only."""

from __future__ import annotations

import re
import zlib

import numpy as np
from numpy.typing import NDArray

WORD = re.compile(r"\w+|[^\w\s]")
NO_WORD = 0


def word_ids(prompt: str, words: int, vocabulary: int) -> NDArray[np.int64]:
    """[words]: a number from 1 to vocabulary - 1 per word, by its CRC-32 in lower case, then NO_WORD. The same on every
    machine. What is behind the first `words` words is cut; two words may share a number.

    >>> word_ids("Reach the red one", words=6, vocabulary=1000).shape
    (6,)
    """
    found = WORD.findall(prompt.lower())[:words]
    ids = np.full(words, NO_WORD, np.int64)
    ids[: len(found)] = [1 + zlib.crc32(word.encode()) % (vocabulary - 1) for word in found]
    return ids
