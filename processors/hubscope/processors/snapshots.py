"""Keeps a processor's windows across restarts, so that a segment that is replayed gives the same derived rows again.

After each segment the state is written to `<state>/processors/<name>-<segment>.json`. A segment that comes again (the
worker died after one exporter had taken it, or an exporter asked for it once more) finds the state as it was before it.
"""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from pathlib import Path
from typing import Any, Final, Protocol

from hubscope.errors import RetryableError
from hubscope.processors.batch import Batch

# Half a minute of segments at two a second. An exporter that is further behind gets its rows from shorter windows.
KEPT: Final = 64
_VERSION: Final = 1

_log = logging.getLogger(__name__)


def sync_directory(directory: Path) -> None:
    """Make the names in a folder durable; Windows does it by itself."""
    if os.name == "nt":
        return
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Stateful(Protocol):
    """A processor with a memory. `restore(None)` is the beginning; `snapshot` is taken between batches."""

    name: str

    def __call__(self, batch: Batch) -> Batch: ...
    def snapshot(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any] | None) -> None: ...


class Remembered:
    """A stateful processor whose state follows the segments. With `directory` None nothing is kept or gone back to."""

    def __init__(
        self, processor: Stateful, directory: Path | None, kept: int = KEPT, *, is_durable: bool = False
    ) -> None:
        self.processor, self.directory, self.kept = processor, directory, kept
        self.is_durable = is_durable  # on the disk before the batch goes on: where a state holds what is nowhere else
        self.name = processor.name
        self._last: int | None = None  # the segment whose state the processor holds
        self._there: deque[tuple[int, Path]] = deque()  # the snapshots, oldest first; listing 64 takes 1 ms

    def __call__(self, batch: Batch) -> Batch:
        """Raises RetryableError where the state cannot be written."""
        if self.directory is not None and (self._last is None or batch.segment <= self._last):
            self._go_back_before(self.directory, batch.segment)
        try:
            result = self.processor(batch)
        except BaseException:
            self._last = None  # half a batch is in the windows: take the state from the snapshot next time
            raise
        if self.directory is not None:
            self._keep(self.directory, batch.segment)
        self._last = batch.segment
        return result

    def counts(self) -> dict[str, int]:
        """What the processor tells of itself; nothing where it tells nothing."""
        found: dict[str, int] = getattr(self.processor, "counts", dict)()
        return found

    def _snapshots(self, directory: Path) -> list[tuple[int, Path]]:
        """Oldest first."""
        found = ((path.stem.rpartition("-")[2], path) for path in directory.glob(f"{self.name}-*.json"))
        return sorted((int(number), path) for number, path in found if number.isdigit())

    def _go_back_before(self, directory: Path, segment: int) -> None:
        """The newest state from before that segment. What was kept of later ones is of a past that is now redone."""
        state: dict[str, Any] | None = None
        self._there = deque(self._snapshots(directory))
        for number, path in reversed(tuple(self._there)):
            if number >= segment:
                path.unlink(missing_ok=True)
                self._there.pop()
            elif (state := self._read(path)) is not None:
                break
        self.processor.restore(state)

    def _read(self, path: Path) -> dict[str, Any] | None:
        """The state in a snapshot, or None where a power cut tore it or another version wrote it."""
        try:
            found = json.loads(path.read_text("utf-8"))
            if found["version"] != _VERSION:
                raise ValueError(f"it has version {found['version']}, and this is version {_VERSION}")
            state: dict[str, Any] = found["state"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("the snapshot %s is left aside: %s", path, error)
            return None
        return state

    def _keep(self, directory: Path, segment: int) -> None:
        text = json.dumps({"version": _VERSION, "state": self.processor.snapshot()}, separators=(",", ":"))
        path = directory / f"{self.name}-{segment:016d}.json"
        unfinished = path.with_suffix(".tmp")
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with open(unfinished, "w", encoding="utf-8") as file:
                file.write(text)
                if self.is_durable:
                    file.flush()
                    os.fsync(file.fileno())
            # Mostly without fsync: after a power cut a torn one is left aside, and only a lagging exporter could tell.
            os.replace(unfinished, path)
            if self.is_durable:
                sync_directory(directory)
            self._there.append((segment, path))
            while len(self._there) > self.kept:
                self._there[0][1].unlink(missing_ok=True)
                self._there.popleft()
        except OSError as error:
            self._last = None
            raise RetryableError(
                f"the state of the {self.name} processor cannot be written to {directory}: {error.strerror}",
                "free some space, or make the directory writable",
            ) from None
