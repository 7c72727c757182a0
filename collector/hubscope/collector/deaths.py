"""How often the worker died on a segment, so that one that kills it can be told from the rest.

`attempts.json` names the segments that were begun and are neither in the lake nor kept for it, the last one that is
kept for it, and the deaths counted so far. A worker that finds something left over from one that did not end by itself
counts a death for two segments: the oldest, which was being written, and the newest, which was being decoded. Ending by
itself, as every stop of a service does, counts for none.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Final

# A worker that died this often in one segment, whose requests all pass their trial, is not told apart from one that
# somebody kills: after so many times the segment is set aside whole, so that the rest goes on.
MAX_DEATHS: Final = 10


class Deaths:
    """The count of one state folder. `written` is the last segment that the lake has.

    `first_kept` and `last_kept` are the first and the last that were processed in a former life and wait for the lake
    on the disk. One thread calls what changes it, any asks for `count`.
    """

    def __init__(self, path: Path, written: int, first_kept: int | None = None, last_kept: int = 0) -> None:
        self._path = path
        self._begun: list[int] = []
        self._kept = last_kept if first_kept is not None else 0
        self._count: dict[int, int] = {}
        blamed: set[int] = set()
        try:
            said = json.loads(path.read_text("ascii"))
            left_over = [int(segment) for segment in said["begun"] if int(segment) > max(written, self._kept)]
            self._count = {int(s): int(n) for s, n in said["deaths"].items() if int(s) > written}
            if left_over:
                blamed = {min(left_over) if first_kept is None else first_kept, max(left_over)}
            elif first_kept is not None and (said["begun"] or said.get("kept")):
                blamed = {first_kept}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # none yet, or torn by a loss of power: counted anew
        for segment in blamed:
            self._count[segment] = self._count.get(segment, 0) + 1
        if self._kept:
            with contextlib.suppress(OSError):  # a full disk: `begin` says so
                self._write()  # writing one of these may kill us before anything is begun

    def begin(self, segment: int) -> int:
        """Note durably against a kill that the segment is begun; how many deaths it has on it. Raises OSError."""
        self._begun.append(segment)
        self._write()
        return self.count(segment)

    def count(self, segment: int) -> int:
        """How many deaths a segment has on it."""
        return self._count.get(segment, 0)

    def kept(self, last: int) -> None:
        """Segments up to `last` wait for the lake on the disk. Kept in memory; the next `begin` writes it."""
        self._kept = last
        self._begun = [segment for segment in self._begun if segment > last]

    def done(self, written: int) -> None:
        """Segments up to `written` are in the lake. Kept in memory; the next `begin` writes it."""
        self._begun = [segment for segment in self._begun if segment > written]
        self._kept = self._kept if self._kept > written else 0
        if self._count:
            self._count = {segment: n for segment, n in self._count.items() if segment > written}

    def forgive(self) -> None:
        """Forget every death: their cause was found."""
        self._count = {}

    def end(self) -> None:
        """The worker ends by itself: what is begun is nobody's fault."""
        self._begun, self._kept = [], 0
        self._write()

    def _write(self) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps({"begun": self._begun, "kept": self._kept, "deaths": self._count}), "ascii")
        fresh.replace(self._path)
