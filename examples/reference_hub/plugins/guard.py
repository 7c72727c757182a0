"""Refuses memories that are too short or too long to be of use."""

from __future__ import annotations

from reference_hub.corpus import MAX_CHARACTERS
from reference_hub.hooks import hookimpl

MIN_WORDS = 3


class Guard:
    @hookimpl
    def accept(self, text: str) -> str | None:
        if len(text.split()) < MIN_WORDS:
            return f"a memory needs {MIN_WORDS} words or more"
        if len(text) > MAX_CHARACTERS:
            return f"a memory may have {MAX_CHARACTERS} characters, this one has {len(text)}"
        return None
