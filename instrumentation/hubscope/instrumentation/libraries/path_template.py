"""A request's path without what tells one request from the next: few names, however many paths.

Used where no framework tells its route. The first two segments stand for the resource, as they are unless they look
like an identifier; whatever follows is one `{…}`. So `/api/users/17/mails` is `/api/users/{…}`.
"""

from __future__ import annotations

import re
from typing import Final

IDENTIFIER: Final = "{…}"
UNKNOWN: Final = "*"
# Kept as they are: a report groups by them. More than so many distinct ones are no names of resources.
MAX_TEMPLATES: Final = 200
_KEPT_SEGMENTS: Final = 2
# Words of a path are shorter and of these characters; others are titles, addresses or tokens.
_WORD: Final = re.compile(r"[A-Za-z0-9_.~:+-]{1,40}\Z")
_NUMBER: Final = re.compile(r"\d+(\.[A-Za-z]\w{0,4})?\Z")  # 17 and 17.json
_HEX: Final = re.compile(r"(?=.*\d)[0-9a-fA-F]{8,}(\.[A-Za-z]\w{0,4})?\Z")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-")
_TOKEN: Final = re.compile(r"(?=.*\d)(?=.*[a-z])(?=.*[A-Z])[A-Za-z0-9_-]{10,}\Z")
_MANY_DIGITS: Final = 4  # a date, an order's number; `v1`, `oauth2`, `utf8` and `s3` have fewer


def is_identifier(segment: str) -> bool:
    """Whether a segment of a path tells one thing among many, rather than a kind of things."""
    if _WORD.match(segment) is None:
        return True
    if sum(character.isdigit() for character in segment) >= _MANY_DIGITS:
        return True
    return any(shape.match(segment) for shape in (_NUMBER, _HEX, _UUID, _TOKEN))


def template_of(path: str) -> str:
    """The path's template; "/" for an empty path."""
    segments = path.split("/")[1:]
    kept = [IDENTIFIER if s and is_identifier(s) else s for s in segments[:_KEPT_SEGMENTS]]
    if any(segments[_KEPT_SEGMENTS:]):
        kept.append(IDENTIFIER)
    elif len(segments) > _KEPT_SEGMENTS:
        kept.append("")
    return "/" + "/".join(kept)


class Templates:
    """The templates of one application, `MAX_TEMPLATES` at most."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def known(self, path: str, *, found: bool) -> str | None:
        """The template, or None beyond the bound. A path that was not found (a scanner's) makes no new template."""
        template = template_of(path)
        if template in self._known:
            return template
        if not found or len(self._known) >= MAX_TEMPLATES:
            return None
        self._known.add(template)
        return template
