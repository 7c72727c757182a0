"""Files into the lake, through the same decoder and processors as the collector's worker; no collector is needed.

Each chunk of a file is in the lake once (`chunks`): importing the file again adds nothing, an import that was
interrupted goes on where it stopped, and of a file that has grown only the rest is added. Of a file that nobody has
imported, the spans that are in the lake all the same are left out (`known_spans`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hubscope.collector.imports.chunks import Chunk, chunks
from hubscope.collector.imports.import_formats import Found, requests_in
from hubscope.collector.imports.known_spans import known_spans
from hubscope.collector.lock import hold
from hubscope.collector.log.wal import Record
from hubscope.collector.segments import batch_of
from hubscope.errors import BadInputError, ConfigError, HubscopeError, LakeError, RetryableError
from hubscope.exporters.disk import DiskFullError
from hubscope.exporters.lake import LakeExporter
from hubscope.lake_schema import TRACES
from hubscope.processors.batch import Batch
from hubscope.processors.pipeline import Chain, chain
from hubscope.processors.rules import Rules

FIRST_REASONS: Final = 10
# Two imports of one file at a time meet in each of the lake's seven tables, where Delta lets only one of them commit.
TRIES: Final = 10
PAUSE_S: Final = 0.2

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
    remedies: list[str] = field(default_factory=list)  # what to do about them, each once

    def noted(self, found: Iterable[Found]) -> Iterator[Found]:
        """All of it, its problems counted on the way."""
        for one in found:
            if one.problem:
                self.reject(one.where, one.problem, one.remedy)
            yield one

    def reject(self, where: str, reason: str, remedy: str = "") -> None:
        """Count something that cannot be taken."""
        self.rejected += 1
        if remedy and remedy not in self.remedies:
            self.remedies.append(remedy)
        if len(self.reasons) < FIRST_REASONS:
            place = f"{self.name}:{where.removeprefix('line ')}" if where else self.name
            self.reasons.append(f"{place}: {reason}")


def import_file(path: Path, lake: str, rules: Rules, name: str = "", progress: Progress = lambda *_: None) -> Outcome:
    """Bring one file's requests into the lake. `name` is what messages call it.

    Raises BadInputError for a file that cannot be read, and LakeError for a lake that cannot be read or written, or
    whose disk is full.
    """
    outcome = Outcome(name or str(path))
    total_bytes = _size_of_readable(path, outcome.name)
    try:
        with _alone(lake, lambda: progress(f"{outcome.name}: waiting for another import", 0, 0)):
            found = requests_in(path, lambda done: progress(f"{outcome.name}: reading", done, total_bytes))
            _bring(outcome.noted(found), lake, rules, outcome)
    except DiskFullError as error:
        raise LakeError(error.message, "make room; the same command then goes on where this one stopped") from error
    except OSError as error:
        place = f"{error.filename}: " if error.filename not in (None, str(path)) else ""
        raise LakeError(
            f"{outcome.name}: {place}{error.strerror or type(error).__name__}",
            "see to that; the same command then goes on where this one stopped",
        ) from error
    return outcome


def _size_of_readable(path: Path, name: str) -> int:
    """The file's size in bytes. Raises BadInputError where it cannot be opened, before anything is done to the lake."""
    try:
        if path.is_dir():
            folder = name.rstrip("/\\")
            raise BadInputError(f"{name}: is a folder", f"name the files in it: hubscope import {folder}/*.json")
        with path.open("rb"):
            return path.stat().st_size
    except FileNotFoundError as error:
        raise BadInputError(f"{name}: {error.strerror}", "is the path right? Nothing is there") from error
    except PermissionError as error:
        raise BadInputError(
            f"{name}: {error.strerror}", "you may not read it: chmod u+r, or run this as who owns it"
        ) from error
    except OSError as error:
        raise BadInputError(f"{name}: {error.strerror or error}", "name a file that can be read") from error


@contextmanager
def _alone(lake: str, waiting: Callable[[], None]) -> Iterator[None]:
    """One import into a lake of this machine at a time: of a file that grows between their starts, the second one
    would not know where the first one ends."""
    if "://" in lake:
        yield
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(Path(lake) / ".state" / "import.lock", math.inf, waiting))
        except ConfigError as error:
            raise LakeError(error.message, "name another lake with --lake") from error
        yield


def _bring(found: Iterator[Found], lake: str, rules: Rules, outcome: Outcome) -> None:
    exporter = LakeExporter(lake)
    through = chain(rules, None)
    with known_spans(lake) as known:
        # First of all: of a span that is in the lake nothing is derived a second time.
        without_known = through._replace(batches=(known, *through.batches))
        for number, chunk in enumerate(chunks(found, exporter), start=1):
            # A chunk that was begun is finished with all its spans: its own must not be taken for somebody else's.
            begun = exporter.has(TRACES, chunk.application)
            batch = _batch(number, _placed(chunk), through if begun else without_known, rules, outcome)
            before = dict(exporter.rows)
            _append(exporter, batch, chunk)
            outcome.accepted += 0 if begun else known.dropped
            for table, rows in batch.tables.items():
                outcome.accepted += rows.num_rows
                outcome.written += rows.num_rows if exporter.rows[table] > before[table] else 0


def _placed(chunk: Chunk) -> list[Placed]:
    now_ns = time.time_ns()
    return [(found.where, Record(signal, data, now_ns)) for found in chunk.found for signal, data in found.requests]


def _append(exporter: LakeExporter, batch: Batch, chunk: Chunk) -> None:
    for left in reversed(range(TRIES)):
        try:
            exporter.append(batch, *chunk.transactions(exporter))
            return
        except DiskFullError:
            raise
        except RetryableError:  # another import of the same file was faster, or the store is not to be had for a moment
            if not left:
                raise
            time.sleep(PAUSE_S)


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
