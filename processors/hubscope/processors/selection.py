"""Which spans and points a feed means: plain functions, used by both forms of the processors.

Everything is matched as text, as the lake stores it; an absent attribute is ''.
"""

from __future__ import annotations

import fnmatch
import functools
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from hubscope.processors.rules import Feed


@functools.lru_cache(maxsize=4096)
def matcher(globs: tuple[str, ...]) -> Callable[[str], bool]:
    """A test for one text: any of the globs matches (if there is any without `!`), and none of those behind `!`."""
    wanted = _regex([g for g in globs if not g.startswith("!")])
    unwanted = _regex([g[1:] for g in globs if g.startswith("!")])

    def matches(text: str) -> bool:
        if unwanted is not None and unwanted.match(text):
            return False
        return wanted is None or wanted.match(text) is not None

    return matches


def _regex(globs: list[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(f"(?:{fnmatch.translate(g)})" for g in globs), re.DOTALL) if globs else None


def as_text(value: object) -> str:
    """An attribute's value as the lake writes it; None (absent) is ''."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case tuple() | list():
            return json.dumps(list(value), ensure_ascii=False, separators=(",", ":"))
        case _:
            return str(value)


def attributes_match(where: Mapping[str, tuple[str, ...]], attributes: Mapping[str, Any]) -> bool:
    return all(matcher(globs)(as_text(attributes.get(name))) for name, globs in where.items())


def span_matches(
    feed: Feed, name: str, kind: str, parent_span_id: str, status: str, attributes: Mapping[str, Any]
) -> bool:
    """Whether the feed means this span. `kind` and `status` as the lake writes them, `parent_span_id` '' on a root."""
    return (
        bool(feed.span)
        and matcher(feed.span)(name)
        and (not feed.kind or kind in feed.kind)
        and (not feed.root or not parent_span_id)
        and (not feed.status or matcher((feed.status,))(status))
        and attributes_match(feed.where, attributes)
    )


def as_number(value: object) -> float:
    """A numeric attribute, from its value or its text; NaN where it is neither."""
    try:
        return float(value) if isinstance(value, str | int | float) else math.nan
    except ValueError:
        return math.nan
