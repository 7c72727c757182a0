"""Finds recalled memories that say nearly the same, so that an answer quotes only one of them.

Two ways. By words: the share of words that two texts have in common (Jaccard). Letter by letter: difflib's longest
matching blocks, whose time grows with the product of the two lengths, for each pair: what one writes first, and what
a quota is there to catch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from itertools import combinations

from reference_hub.embedding import words
from reference_hub.hooks import Note, hookimpl
from reference_hub.memory_store import Memory

COMPARED = 30  # memories: 435 pairs
LETTERS = 800  # of each text; what follows rarely makes two different memories alike
NEARLY_THE_SAME = 0.8


class NearDuplicates:
    def __init__(self, letter_by_letter: bool) -> None:
        self.letter_by_letter = letter_by_letter

    @hookimpl
    def enrich(self, question: str, memories: Sequence[Memory]) -> Note:
        compared = memories[:COMPARED]
        texts = [memory.text[:LETTERS] for memory in compared]
        alike = _by_letters if self.letter_by_letter else _by_words(texts)
        dropped = {
            compared[later].id
            for earlier, later in combinations(range(len(compared)), 2)
            if alike(texts[earlier], texts[later]) >= NEARLY_THE_SAME
        }
        lines = (f"{len(dropped)} of {len(compared)} say nearly the same as a better one",) if dropped else ()
        return Note("near-duplicates", lines, frozenset(dropped))


def _by_letters(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other, autojunk=False).ratio()


def _by_words(texts: Sequence[str]) -> Callable[[str, str], float]:
    """A comparison that splits each text only once."""
    sets = {text: frozenset(words(text)) for text in texts}

    def alike(one: str, other: str) -> float:
        a, b = sets[one], sets[other]
        either = len(a | b)
        return len(a & b) / either if either else 1.0

    return alike
