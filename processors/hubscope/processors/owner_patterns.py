"""Expressions of the configuration, matched by RE2 alone, in a time that is linear in the text.

Python's `re` tries every way to match: `(a+)+b$` over 45 letters kept the worker for hours, and with it the lake.
RE2 as Arrow has it replaces and does not tell places; so it marks what it finds, and the marks are read.
"""

from __future__ import annotations

import re
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

_MARKS: Final = tuple(map(chr, range(0xE000, 0xF8FF)))  # Unicode's private use area
_MOST_GROUPS: Final = 9  # that a replacement can name


class OwnerPattern:
    """One of `processors.redaction.patterns`. Raises re.error for what is none."""

    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._groups = min(_MOST_GROUPS, re.compile(expression).groups)

    def places(self, text: str) -> list[tuple[int, int]]:
        """(start, end) of each secret, in their order: the first group that holds something, or else the match.

        Where a group's text stands in its match several times, each is one: RE2 does not say which it was.
        """
        begin, then, end = _unused(text)
        parts = then.join(f"\\{number}" for number in range(self._groups + 1))
        marked = _replaced(text, self._expression, f"{begin}{parts}{end}")
        found: list[tuple[int, int]] = []
        before, *pieces = marked.split(begin)
        at = len(before)  # in `text`
        for piece in pieces:
            inside, after = piece.split(end)
            match, *groups = inside.split(then)
            secret = next(filter(None, groups), match)
            place = match.find(secret) if secret else -1
            while place >= 0:
                start = found.pop()[0] if found and found[-1][1] == at + place else at + place  # `(a)+` is one secret
                found.append((start, at + place + len(secret)))
                place = match.find(secret, place + len(secret))
            at += len(match) + len(after)
        return found


def matches_whole(text: str, expression: str) -> bool:
    """Whether RE2 matches all of the text."""
    found = pc.match_substring_regex(pa.array([text], pa.string()), rf"\A(?:{expression})\z")
    return bool(found[0].as_py())


def _replaced(text: str, expression: str, replacement: str) -> str:
    array = pc.replace_substring_regex(pa.array([text], pa.string()), expression, replacement)
    return str(array[0].as_py())


def _unused(text: str) -> tuple[str, str, str]:
    """Three characters that the text has not got."""
    free = (mark for mark in _MARKS if mark not in text)
    return next(free), next(free), next(free)
