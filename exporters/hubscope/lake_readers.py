"""Who reads the lake now: a lease for each reader, which vacuum asks before it removes what the log no longer names.

A lease is a file in the lake's `.state/readers/` that its reader keeps locked. The kernel lets go of the lock with the
process, also after kill -9, on another container of this machine or on a network file system, where a process id says
nothing. So a lease that can be locked is a dead reader's, and is removed.

A lease first holds everything, then the files of the snapshot that its reader opened: whatever vacuum may remove was
out of the log before vacuum looked at the leases, so a reader that comes later has never seen it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from hubscope.file_lock import try_lock

FOLDER: Final = ".state/readers"


class Lease:
    """What one reader holds, from `take` until `release` or the end of its process."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd
        self._pid = os.getpid()

    def hold(self, files: Iterable[str]) -> None:
        """Hold just these, each `table/path` with the path as the table's log has it."""
        said = json.dumps({"pid": self._pid, "taken_unix_ns": time.time_ns(), "files": sorted(files)}).encode()
        # A vacuum that reads half of it finds no JSON, and takes everything as held; so does one on a full disk.
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
            os.write(self._fd, said)

    def release(self) -> None:
        """End the lease. Nothing in a forked child: the lease is its parent's."""
        if self._fd < 0 or os.getpid() != self._pid:
            return
        if os.name != "nt":  # Windows removes no open file
            self._path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = -1
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def take(lake: str) -> Lease | None:
    """A lease that holds every file, for a reader about to open the lake.

    None for a lake at a URL, which has no locks, and where this user may not write: there only the time counts that
    vacuum leaves every reader (`exporters.lake.reader_grace`).
    """
    if "://" in lake:
        return None
    folder = Path(lake) / FOLDER
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            path = folder / f"{uuid.uuid4().hex}.json"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
            # Between the two a vacuum may have taken it for a dead reader's.
            if try_lock(fd) and path.exists():
                return Lease(path, fd)
            os.close(fd)
    except OSError:
        return None


def held(lake: str) -> set[str] | None:
    """The files (`table/path`) that living readers hold; None where one holds everything. Drops the dead's leases."""
    files: set[str] = set()
    everything = False
    for path in _leases(lake):
        try:
            fd = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        except FileNotFoundError:
            continue
        except OSError:
            everything = True  # another user's: it cannot be asked
            continue
        try:
            if try_lock(fd):
                with contextlib.suppress(OSError):
                    path.unlink()
                continue
            said = json.loads(path.read_text("utf-8"))
            files.update(said["files"])
        except (OSError, ValueError, KeyError, TypeError):
            everything = True
        finally:
            os.close(fd)
    return None if everything else files


def _leases(lake: str) -> list[Path]:
    return [] if "://" in lake else list((Path(lake) / FOLDER).glob("*.json"))
