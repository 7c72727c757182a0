"""Secrets of one text are masked, outside of telemetry: what is about to stand in a log line."""

from __future__ import annotations

import re
from typing import Final

from hubscope.processors.secret_patterns import PATTERNS
from hubscope.processors.secret_values import secrets

_COMPILED: Final = tuple((pattern, re.compile(pattern.expression, re.ASCII)) for pattern in PATTERNS)


def without_secrets(text: str, mask: str = "****") -> str:
    """The text with `mask` in place of what shipped patterns and names find; no owner's own patterns."""
    for pattern, expression in _COMPILED:
        places = []
        for found in expression.finditer(text):
            group = next((n for n, part in enumerate(found.groups(), start=1) if part is not None), 0)
            if pattern.plausible is None or pattern.plausible(found[group]):
                places.append(found.span(group))
        text = _masked(text, places, mask)
    return _masked(text, [(secret.start, secret.end) for secret in secrets(text)], mask)


def _masked(text: str, places: list[tuple[int, int]], mask: str) -> str:
    pieces, done = [], 0
    for start, end in places:
        pieces += [text[done:start], mask]
        done = end
    return "".join([*pieces, text[done:]])
