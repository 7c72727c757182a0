"""Explains the question's words by the shortest memory that is tagged with them."""

from __future__ import annotations

from collections.abc import Sequence

from reference_hub.embedding import words
from reference_hub.hooks import Note, hookimpl
from reference_hub.memory_store import Memory


class Glossary:
    @hookimpl
    def enrich(self, question: str, memories: Sequence[Memory]) -> Note:
        lines = []
        for word in dict.fromkeys(words(question)):
            tagged = [memory for memory in memories if word in memory.tags]
            if tagged:
                shortest = min(tagged, key=lambda memory: len(memory.text))
                lines.append(f"{word}: {shortest.text.splitlines()[0]}")
        return Note("glossary", tuple(lines))
