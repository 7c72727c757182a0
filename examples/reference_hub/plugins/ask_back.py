"""Suggests what to ask next: the tags that the recalled memories share and the question does not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from reference_hub.embedding import words
from reference_hub.hooks import Note, hookimpl
from reference_hub.memory_store import Memory


class AskBack:
    @hookimpl
    def enrich(self, question: str, memories: Sequence[Memory]) -> Note:
        asked = set(words(question))
        shared = Counter(tag for memory in memories for tag in memory.tags if tag not in asked)
        return Note("ask-back", tuple(f"And {tag}?" for tag, count in shared.most_common(3) if count > 1))
