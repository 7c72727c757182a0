"""Files into the lake, through the same decoder and processors as the collector's worker; no collector is needed.

A file is known by the SHA-256 of its bytes, which names its Delta application transactions: importing it again adds
nothing, and an import that was interrupted goes on where it stopped. A file that has grown is another file.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hubscope.collector.imports.import_formats import requests_in
from hubscope.collector.log.wal import Record
from hubscope.collector.segments import batch_of
from hubscope.errors import HubscopeError, LakeError, RetryableError
from hubscope.exporters.lake import LakeExporter
from hubscope.processors.batch import Batch
from hubscope.processors.pipeline import Chain, chain
from hubscope.processors.rules import Rules

BATCH_BYTES: Final = 8 << 20  # one Delta commit; half of the collector's segments, for JSON takes memory beside it
FIRST_REASONS: Final = 10

Placed = tuple[str, Record]  # where it stood, and what it is

Progress = Callable[[str, int, int], None]  # what is done, bytes done, bytes in all


@dataclass
class Outcome:
    """What became of one file. Items are spans, data points and log records."""

    name: str
    accepted: int = 0  # items read, whether they were in the lake before or not
    written: int = 0  # items that this import added
    rejected: int = 0  # lines, messages or documents
    reasons: list[str] = field(default_factory=list)  # the first FIRST_REASONS, each with its place

    def reject(self, where: str, reason: str) -> None:
        """Count something that cannot be taken."""
        self.rejected += 1
        if len(self.reasons) < FIRST_REASONS:
            place = f"{self.name}:{where.removeprefix('line ')}" if where else self.name
            self.reasons.append(f"{place}: {reason}")


def import_file(path: Path, lake: str, rules: Rules, name: str = "", progress: Progress = lambda *_: None) -> Outcome:
    """Bring one file's requests into the lake. `name` is what messages call it.

    Raises LakeError for a file or a lake that cannot be read or written.
    """
    outcome = Outcome(name or str(path))
    try:
        total_bytes = path.stat().st_size
        if path.is_dir():
            raise LakeError(f"{outcome.name}: is a folder", "name the files in it: hubscope import FOLDER/*.json")
        exporter = LakeExporter(lake, f"hubscope-import/{_digest(path, outcome.name, progress, total_bytes)}")
        through = chain(rules, None)
        for number, placed in enumerate(_batches(path, outcome, progress, total_bytes), start=1):
            batch = _batch(number, placed, through, rules, outcome)
            before = sum(exporter.rows.values())
            exporter.export(batch)
            items = sum(rows.num_rows for rows in batch.tables.values())
            outcome.accepted += items
            outcome.written += min(items, sum(exporter.rows.values()) - before)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise LakeError(f"{outcome.name}: {reason}", "is the path right, and may you read it?") from error
    return outcome


def _digest(path: Path, name: str, progress: Progress, total_bytes: int) -> str:
    digest = hashlib.sha256()
    done_bytes = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
            done_bytes += len(piece)
            progress(f"{name}: looking", done_bytes, total_bytes)
    return digest.hexdigest()


def _batches(path: Path, outcome: Outcome, progress: Progress, total_bytes: int) -> Iterator[list[Placed]]:
    """The file's good requests in groups that depend on its content alone, so that a second import cuts it the same."""
    placed: list[Placed] = []
    size_bytes = 0
    now_ns = time.time_ns()
    for found in requests_in(path, lambda done: progress(f"{outcome.name}: reading", done, total_bytes)):
        if found.problem:
            outcome.reject(found.where, found.problem)
        for signal, payload in found.requests:
            placed.append((found.where, Record(signal, payload, now_ns)))
            size_bytes += len(payload)
        if size_bytes >= BATCH_BYTES:
            yield placed
            placed, size_bytes = [], 0
    if placed:
        yield placed


def _batch(number: int, placed: list[Placed], through: Chain, rules: Rules, outcome: Outcome) -> Batch:
    """The batch of all the records that can be taken; the others are counted with their reasons."""
    try:
        return batch_of(number, [record for _, record in placed], through)
    except RetryableError:
        raise
    except Exception:  # noqa: BLE001 - one request must not stop the rest: they are tried one by one
        good = []
        for where, record in placed:
            try:
                batch_of(number, [record], chain(rules, None))
                good.append(record)
            except Exception as error:  # noqa: BLE001 - whatever it makes the code raise is why it is rejected
                outcome.reject(where, error.message if isinstance(error, HubscopeError) else repr(error)[:300])
        return batch_of(number, good, through)
