"""What a destination answers, as it may stand in a log line or on a page: it is somebody else's text."""

from __future__ import annotations

from typing import Final

ANSWER_LIMIT: Final = 300  # characters; a server may echo the whole request


def shown(text: str) -> str:
    """The text on one line, cut, its control characters escaped (a terminal obeys them) and its secrets masked."""
    from hubscope.processors.secret_text import without_secrets  # 5 ms, and only where something is wrong

    # Cut before it is searched, but with room: a secret that is cut in two would not be known by its shape any more.
    plain = without_secrets(text[: 4 * ANSWER_LIMIT])
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in plain)
    return escaped if len(escaped) <= ANSWER_LIMIT else f"{escaped[:ANSWER_LIMIT]}…"
