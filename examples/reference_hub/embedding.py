"""Texts to vectors by feature hashing: no model, no download, the same vector everywhere.

Each word adds ±(1 + ln of its count) to the coordinate that a checksum of the word picks, and the vector is scaled to
length 1 (Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning"). Texts that share words are
therefore near each other; texts that mean the same in other words are not. Good enough to give a vector index
real, unevenly spread vectors of the usual length, and said plainly: it is not a language model.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter

import numpy as np
import numpy.typing as npt

DIMENSIONS = 1536
_WORD = re.compile(r"[a-z]{3,}")
# The words that stand in nearly every docstring; they would make all texts alike.
_COMMON = frozenset(
    re.findall(
        r"\w+", "the and for are that this with not from will can which when has have was its you your may all any"
    )
)
Vector = npt.NDArray[np.float32]


def words(text: str) -> list[str]:
    """The words that count: lower case, three letters or more, without the commonest."""
    return [word for word in _WORD.findall(text.lower()) if word not in _COMMON]


def embed(text: str) -> Vector:
    """A vector of shape (1536,), float32, length 1; of length 0 if the text holds no word that counts."""
    vector = np.zeros(DIMENSIONS, dtype=np.float32)
    for word, count in Counter(words(text)).items():
        checksum = zlib.crc32(word.encode())
        sign = 1.0 if checksum & 0x8000_0000 else -1.0
        vector[checksum % DIMENSIONS] += sign * (1.0 + math.log(count))
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if length else vector
