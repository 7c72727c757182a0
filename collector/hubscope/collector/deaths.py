"""How often the worker died on a segment, so that one that kills it can be told from the rest.

`attempts.json` names the segments that were begun and are not in the lake, and the deaths counted so far. A worker that
finds segments left over from one that did not end by itself counts a death for two of them: the oldest, which was being
written, and the newest, which was being decoded. Ending by itself, as every stop of a service does, counts for none.
"""

from __future__ import annotations

import json
from pathlib import Path


class Deaths:
    """The count of one state folder. `written` is the last segment that the lake has."""

    def __init__(self, path: Path, written: int) -> None:
        self._path = path
        self._begun: list[int] = []
        self._count: dict[int, int] = {}
        try:
            said = json.loads(path.read_text("ascii"))
            left_over = [int(segment) for segment in said["begun"] if int(segment) > written]
            self._count = {int(s): int(n) for s, n in said["deaths"].items() if int(s) > written}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return  # none yet, or torn by a loss of power: counted anew
        for segment in {min(left_over), max(left_over)} if left_over else ():
            self._count[segment] = self._count.get(segment, 0) + 1

    def begin(self, segment: int) -> int:
        """Note durably against a kill that the segment is begun; how many deaths it has on it. Raises OSError."""
        self._begun.append(segment)
        self._write()
        return self._count.get(segment, 0)

    def done(self, written: int) -> None:
        """Segments up to `written` are in the lake. Kept in memory; the next `begin` writes it."""
        self._begun = [segment for segment in self._begun if segment > written]
        self._count = {segment: n for segment, n in self._count.items() if segment > written}

    def forgive(self) -> None:
        """Forget every death: their cause was found."""
        self._count.clear()

    def end(self) -> None:
        """The worker ends by itself: what is begun is nobody's fault."""
        self._begun = []
        self._write()

    def _write(self) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps({"begun": self._begun, "deaths": self._count}), "ascii")
        fresh.replace(self._path)
