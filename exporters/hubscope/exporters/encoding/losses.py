"""What could not be written as it was: counted, and named once on the log.

An application that gives the same odd value a thousand times a second gets one line, and the count says the rest.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Final

_log = logging.getLogger("hubscope")
_MAX_NAMES: Final = 200  # names kept to log each once; an application that makes names up fills no memory and no log

counts: Final[Counter[str]] = Counter()  # by what happened, since the process began
_named: Final[set[tuple[str, str]]] = set()


def left_out(what: str, name: object, error: BaseException) -> None:
    """An item ("span", "attribute", …) that is not sent. `name` is its own name, `error` the reason."""
    _note(what, "left out", name, f"cannot be encoded and is left out: {type(error).__name__}: {error}")


def replaced(what: str, name: object, by: str) -> None:
    """A value that is sent as something else than it was."""
    _note(what, "replaced", name, f"is sent as {by}")


def _note(what: str, happened: str, name: object, text: str) -> None:
    counts[f"{what} {happened}"] += 1
    known = (what, str(name)[:100])
    if known in _named or len(_named) >= _MAX_NAMES:
        return
    _named.add(known)
    more = "; names of further ones are not told any more" if len(_named) == _MAX_NAMES else ""
    _log.warning("hubscope: %s %r %s%s", what, known[1], text[:300], more)
