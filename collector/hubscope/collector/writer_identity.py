"""Which of a lake's writers this state folder is: what keeps its segment numbers from being taken for another's.

The lake refuses a segment whose number it has of a writer. So a state folder that was restored from a backup, or copied
to a second machine, would have its new segments refused for the old ones of the same numbers. Therefore:

- Each opening of the log leaves the first number that it will give, and one of its own, in `wal/first`, until the
  worker has compared it with the lake. Where the lake has that number already, somebody else gave it: this folder
  becomes a new writer.
- From then on each commit names the opening (`owner`). A number of it that the lake has under another owner is of a
  copy of this folder that runs too: whoever meets it first becomes a new writer.

Numbers below the session's first are what they are after a crash: what the lake has of them it has of us.
"""

from __future__ import annotations

import json
import logging
import secrets
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hubscope.collector.log.cursors import Cursor
from hubscope.collector.log.durable import sync_directory, write_durably
from hubscope.collector.log.wal import FIRST
from hubscope.errors import RetryableError
from hubscope.exporters.lake import COLLECTOR_APPLICATION, LakeExporter

_NO_SESSION: Final = (0, 1 << 63)  # every number is believed: of a version that had none, or before the first look
_log = logging.getLogger("hubscope.worker")


def writer_id(state_dir: Path) -> str:
    """This state folder's name among the writers of a lake: its segment numbers are its own."""
    path = state_dir / "writer-id"
    if not path.exists():
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_durably(path, uuid.uuid4().hex.encode())
    return path.read_text("ascii").strip()


class WriterIdentity:
    """The writer and its session. `owner` is what its commits carry, 0 for nothing; `first` its first number."""

    def __init__(self, state_dir: Path, wal_dir: Path) -> None:
        self._state_dir = state_dir
        self._marker = wal_dir / FIRST
        self.id = writer_id(state_dir)
        self.owner, self.first = self._session()

    @property
    def application(self) -> str:
        """As the lake's transactions name it."""
        return f"{COLLECTOR_APPLICATION}/{self.id}"

    def compare(self, lake: LakeExporter, cursor: Cursor) -> None:
        """Where the log was opened since the last look: see whether the lake knows numbers that it will give.

        Raises RetryableError for a lake that is away, or a state folder that cannot be written.
        """
        try:
            said = self._marker.read_text("ascii")
            openings = [(int(first), int(owner)) for first, owner in map(str.split, said.splitlines())]
            first, owner_now = openings[-1]
        except FileNotFoundError:
            return
        except (OSError, ValueError, IndexError) as error:
            raise RetryableError(f"{self._marker}: {error}", "check the disk of the state folder") from error
        found = lake.transactions(self.application)
        known = {self.owner, *(owner for _, owner in openings)}
        if any(number >= min(self.first, openings[0][0]) and owner not in known for number, owner in found):
            self.renew()
        elif any(number >= first for number, _ in found):
            # Of a session that is ours too, after this copy was made of it: it went on, and has what the copy holds.
            self._do(lambda: cursor.advance(max(cursor.segment, first - 1)))
            self.renew()
        else:
            self._begin(self.id, first, owner_now)
        self._do(lambda: self._marker.unlink(missing_ok=True))
        self._do(lambda: sync_directory(self._marker.parent))
        lake.application = self.application

    def renew(self) -> str:
        """Become a new writer, durably, and say so; the name of its transactions. Raises RetryableError."""
        fresh = uuid.uuid4().hex
        self._do(lambda: write_durably(self._state_dir / "writer-id", fresh.encode()))
        _log.warning(
            "the lake has segments of this state folder that it does not know: %s was restored from a backup, or is a"
            " copy of one that is in use. It goes on as a writer of its own (%s, before: %s); nothing is lost",
            self._state_dir,
            fresh,
            self.id,
        )
        self._begin(fresh, 0, secrets.randbits(62) | 1)
        return self.application

    def _begin(self, identity: str, first: int, owner: int) -> None:
        session = json.dumps({"writer": identity, "owner": owner, "first": first})
        self._do(lambda: write_durably(self._state_dir / "writer-session.json", session.encode()))
        self.id, self.owner, self.first = identity, owner, first

    def _session(self) -> tuple[int, int]:
        try:
            said = json.loads((self._state_dir / "writer-session.json").read_bytes())
            return (int(said["owner"]), int(said["first"])) if said["writer"] == self.id else _NO_SESSION
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return _NO_SESSION

    def _do(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            raise RetryableError(f"{self._state_dir}: {error.strerror or error}", "make room on its disk") from error
