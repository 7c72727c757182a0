"""Requests that were not accepted, on disk until they are: bounded, the oldest out first, each sent by one process.

    <HUBSCOPE_SPOOL_DIR>/traces-3f9a…/destination        where these requests go, for people
                                     /lock               held by the process that is sending from here
                                     /<time>-<pid>-<number>-<items>-<bytes>.otlp

A folder belongs to one signal and one endpoint, so nothing goes anywhere else. A file is one request, byte for byte as
it was, or would have been, sent; headers are not kept, what is sent later gets those of the process that sends it.
Folders have mode 0700 and files 0600. A file appears whole, by a rename, and its name says its size: one that a power
failure cut short is known by that. Nothing is synced: the time to leave is short, and a process's end loses no write.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from hubscope.exporters.delivery.settings import Destination
from hubscope.file_lock import try_lock
from hubscope.instrumentation import settings

_KEPT: Final = ".otlp"
_SENDING: Final = ".sending"  # claimed; whoever has the lock and finds one knows that its owner died
_PART: Final = ".part"
_PART_AGE_S: Final = 3600.0  # a file that is still being written is younger

_numbers: Final = itertools.count()


class Entry(NamedTuple):
    """A request that waits. Names sort by age."""

    folder: str
    name: str
    items: int
    size: int

    @property
    def path(self) -> str:
        return os.path.join(self.folder, self.name)


class Spool:
    """The folder of one destination. Any number of processes and threads may use it at once."""

    def __init__(self, root: str, max_bytes: int, destination: Destination) -> None:
        key = hashlib.sha256(f"{destination.signal} {destination.protocol} {destination.shown}".encode()).hexdigest()
        self.root = root
        self.folder = os.path.join(root, f"{destination.signal}-{key[:16]}")
        self._max_bytes = max_bytes  # of all destinations together
        self._about = f"{destination.signal} for {destination.shown}\n"
        self._lock_fd: int | None = None

    def keep(self, payload: bytes, items: int) -> list[Entry]:
        """Write one request; the oldest ones that had to go for it. Raises OSError where it cannot be written."""
        if len(payload) > self._max_bytes:
            raise OSError(f"a request of {len(payload)} bytes is above {settings.SPOOL_MAX_BYTES}={self._max_bytes}")
        self._make()
        dropped = self._make_room(len(payload))
        name = f"{time.time_ns():020d}-{os.getpid()}-{next(_numbers)}-{items}-{len(payload)}"
        part = os.path.join(self.folder, name + _PART)
        try:
            _write(part, payload)
            os.rename(part, os.path.join(self.folder, name + _KEPT))
        except OSError:
            with suppress(OSError):
                os.unlink(part)
            raise
        return dropped

    def is_empty(self) -> bool:
        """Whether nothing waits for this destination."""
        return not any(name.endswith((_KEPT, _SENDING)) for name in _names(self.folder))

    @contextmanager
    def claimed(self) -> Iterator[bool]:
        """Whether this process alone may send from here, until the end of the block or of the process."""
        try:
            self._lock_fd = fd = os.open(os.path.join(self.folder, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            yield False
            return
        try:
            is_ours = try_lock(fd)
            if is_ours:
                for name in _names(self.folder):
                    if name.endswith(_SENDING):
                        self._rename(name, name.removesuffix(_SENDING) + _KEPT)
            yield is_ours
        finally:
            self._lock_fd = None
            os.close(fd)

    def forget(self) -> None:
        """In a forked child: the claim is the parent's, and must not live on with the child."""
        if self._lock_fd is not None:
            with suppress(OSError):
                os.close(self._lock_fd)
            self._lock_fd = None

    def waiting(self) -> list[Entry]:
        """What waits for this destination, the oldest first."""
        kept = (entry for entry in _entries(self.folder) if entry.name.endswith(_KEPT))
        return sorted(kept, key=lambda entry: entry.name)

    def take(self, entry: Entry) -> bytes | None:
        """A claimed entry's request; None where another process dropped it, or it is not whole and is removed."""
        sending = entry.name.removesuffix(_KEPT) + _SENDING
        if not self._rename(entry.name, sending):
            return None
        with open(os.path.join(self.folder, sending), "rb") as file:
            payload = file.read()
        if len(payload) == entry.size:
            return payload
        self.done(entry)
        return None

    def done(self, entry: Entry) -> None:
        """It was taken, or refused for good."""
        with suppress(OSError):
            os.unlink(os.path.join(self.folder, entry.name.removesuffix(_KEPT) + _SENDING))

    def put_back(self, entry: Entry) -> None:
        """It waits again."""
        self._rename(entry.name.removesuffix(_KEPT) + _SENDING, entry.name)

    def _rename(self, old: str, new: str) -> bool:
        try:
            os.rename(os.path.join(self.folder, old), os.path.join(self.folder, new))
        except FileNotFoundError:
            return False
        return True

    def _make(self) -> None:
        if os.path.isdir(self.folder):
            return
        make_private(self.folder)
        with suppress(FileExistsError):  # another process is as far
            _write(os.path.join(self.folder, "destination"), self._about.encode())

    def _make_room(self, size: int) -> list[Entry]:
        waiting: list[Entry] = []
        for folder in _names(self.root):
            waiting += _entries(os.path.join(self.root, folder))
        total = sum(entry.size for entry in waiting) + size
        dropped: list[Entry] = []
        if total <= self._max_bytes:
            return dropped
        for entry in sorted(waiting, key=lambda entry: entry.name):
            if entry.name.endswith(_KEPT):  # not from under a request that is on its way
                try:
                    os.unlink(entry.path)
                except FileNotFoundError:  # sent, or dropped by another process, meanwhile
                    total -= entry.size
                else:
                    total -= entry.size
                    dropped.append(entry)
            if total <= self._max_bytes:
                break
        return dropped


def spool(destination: Destination, environ: Mapping[str, str]) -> Spool | None:
    """Where that destination's requests wait; None where the settings want none, or there is no folder for it."""
    max_bytes = settings.positive_number(settings.SPOOL_MAX_BYTES, settings.DEFAULT_SPOOL_MAX_BYTES, environ)
    root = environ.get(settings.SPOOL_DIR, "").strip() or default_root(environ)
    if max_bytes < 1 or not os.path.isabs(root):
        return None
    return Spool(root, int(max_bytes), destination)


def default_root(environ: Mapping[str, str]) -> str:
    """`hubscope/spool` in the user's state folder; what platformdirs says, without importing it (7 ms) on Linux."""
    if sys.platform in ("win32", "darwin"):
        import platformdirs

        state = platformdirs.user_state_dir("hubscope", appauthor=False)
    else:
        base = environ.get("XDG_STATE_HOME", "").strip() or os.path.expanduser("~/.local/state")
        state = os.path.join(base, "hubscope")
    return os.path.join(state, "spool")


def make_private(folder: str) -> None:
    """Make a folder, and those missing above it, for the owner alone."""
    if not os.path.isdir(folder):
        make_private(os.path.dirname(folder))
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(fd, left) :]
    finally:
        os.close(fd)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _entries(folder: str) -> Iterator[Entry]:
    for name in _names(folder):
        stem, dot, suffix = name.rpartition(".")
        parts = stem.split("-")
        if len(parts) != 5 or not all(part.isdigit() for part in parts):
            continue
        if dot + suffix in (_KEPT, _SENDING):
            yield Entry(folder, name, int(parts[3]), int(parts[4]))
        elif dot + suffix == _PART and int(parts[0]) < time.time_ns() - _PART_AGE_S * 1e9:
            with suppress(OSError):
                os.unlink(os.path.join(folder, name))
