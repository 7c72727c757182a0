"""Keeps a processor's windows across restarts, so that a segment that is replayed gives the same derived rows again.

After each segment the state is written to `<state>/processors/<name>-<segment>.json`. A segment that comes again (the
worker died after one exporter had taken it, or an exporter asked for it once more) finds the state as it was before it.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any, Final, Protocol

from hubscope.errors import RetryableError
from hubscope.processors.batch import Batch

# Half a minute of segments at two a second. An exporter that is further behind gets its rows from shorter windows.
KEPT: Final = 64
_VERSION: Final = 1

_log = logging.getLogger(__name__)


class Stateful(Protocol):
    """A processor with a memory. `restore(None)` is the beginning; `snapshot` is taken between batches."""

    name: str

    def __call__(self, batch: Batch) -> Batch: ...
    def snapshot(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any] | None) -> None: ...


class Remembered:
    """A stateful processor whose state follows the segments. With `directory` None nothing is kept on disk."""

    def __init__(self, processor: Stateful, directory: Path | None, kept: int = KEPT) -> None:
        self.processor, self.directory, self.kept = processor, directory, kept
        self.name = processor.name
        self._last: int | None = None  # the segment whose state the processor holds
        self._in_memory: dict[int, str] = {}  # what would be on disk, where there is none

    def __call__(self, batch: Batch) -> Batch:
        """Raises RetryableError where the state cannot be written."""
        if self._last is None or batch.segment <= self._last:
            self._go_back_before(batch.segment)
        try:
            result = self.processor(batch)
        except BaseException:
            self._last = None  # half a batch is in the windows: take the state from the snapshot next time
            raise
        self._last = batch.segment
        self._keep(batch.segment)
        return result

    def _segments(self) -> list[int]:
        if self.directory is None:
            return sorted(self._in_memory)
        prefix = f"{self.name}-"
        numbers = (p.name[len(prefix) : -len(".json")] for p in self.directory.glob(f"{prefix}*.json"))
        return sorted(int(number) for number in numbers if number.isdigit())

    def _path(self, segment: int) -> Path:
        assert self.directory is not None
        return self.directory / f"{self.name}-{segment:016d}.json"

    def _go_back_before(self, segment: int) -> None:
        for candidate in reversed([s for s in self._segments() if s < segment]):
            state = self._read(candidate)
            if state is not None:
                self.processor.restore(state)
                return
        self.processor.restore(None)

    def _read(self, segment: int) -> dict[str, Any] | None:
        """The snapshot after that segment, or None where it was torn by a power cut or written by another version."""
        try:
            text = self._in_memory[segment] if self.directory is None else self._path(segment).read_text("utf-8")
            found = json.loads(text)
            if found["version"] != _VERSION:
                raise ValueError(f"version {found['version']}")
            state: dict[str, Any] = found["state"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("the %s snapshot of segment %d is left aside: %s", self.name, segment, error)
            return None
        return state

    def _keep(self, segment: int) -> None:
        text = json.dumps({"version": _VERSION, "state": self.processor.snapshot()}, separators=(",", ":"))
        if self.directory is None:
            self._in_memory[segment] = text
            for old in sorted(self._in_memory)[: -self.kept]:
                del self._in_memory[old]
            return
        path = self._path(segment)
        unfinished = path.with_suffix(".tmp")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(text, "utf-8")
            os.replace(unfinished, path)
            for old in self._segments()[: -self.kept]:
                self._path(old).unlink(missing_ok=True)
        except OSError as error:
            self._last = None
            raise RetryableError(
                f"the state of the {self.name} processor cannot be written to {self.directory}: {error.strerror}",
                "free some space, or make the directory writable",
            ) from None
