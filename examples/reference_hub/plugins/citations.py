"""Says where each quoted memory comes from."""

from __future__ import annotations

from collections.abc import Sequence

from reference_hub.hooks import Note, hookimpl
from reference_hub.memory_store import Memory


class Citations:
    @hookimpl
    def enrich(self, question: str, memories: Sequence[Memory]) -> Note:
        lines = (f"{memory.title} ({memory.package} {memory.version or 'of this Python'})" for memory in memories[:8])
        return Note("citations", tuple(lines))
