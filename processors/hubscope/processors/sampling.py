"""Tail sampling: traces with an error, slow ones, with a quota violation or a start stay whole, of the others a share.

KPIs and quotas have seen every span by then, so what they derive is exact. A span that was kept says how many it stands
for: `ot=th:…` in its trace state and `hub.sampling.adjusted_count`, so counts over samples can be weighted honestly.

A trace waits `wait_s` from its first span on, by the clock of reception; what waits is on disk (sampling_files.py) and
follows the snapshots, so every span is stored once or dropped once, whatever is killed when. Spans that come after
their trace's decision follow it.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hubscope import semconv
from hubscope.errors import RetryableError
from hubscope.lake_schema import LOGS, TRACES
from hubscope.processors.batch import Batch
from hubscope.processors.consistent import ALL, randomness, threshold_of
from hubscope.processors.options import SamplingOptions
from hubscope.processors.sampling_files import SamplingFiles
from hubscope.processors.sampling_marks import marked
from hubscope.processors.slowness import Slowness

KEPT_SNAPSHOTS: Final = 8  # the worker is at most three segments ahead of the lake
TABLES_SIZE_BYTES: Final = 48 << 20  # of waiting spans held in memory; the others are read from their files
_YOUNG: Final = 4096  # decisions in the snapshot itself, before they get a file of their own

_log = logging.getLogger(__name__)

# Verdicts.
WHOLE: Final = "whole"  # kept for what it is: stands for itself
SHARE: Final = "share"  # kept as one of the share
DROPPED: Final = "dropped"


@dataclass(slots=True)
class _Trace:
    first_ns: int  # when its first span was received
    start_ns: int
    end_ns: int
    reason: str = ""  # why it is kept whole, as far as is known
    root: tuple[str, str] | None = None  # service and name of its root
    root_ns: int = 0
    trace_state: str = ""  # one with an explicit randomness
    chunks: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Chunk:
    received_ns: int
    size_bytes: int
    open: int = 0  # traces in it that are not decided
    table: pa.Table | None = None


class Sampling:
    """The processor. What it takes out of `tables` comes back in a later batch, or is counted as dropped."""

    name = "sampling"

    def __init__(self, options: SamplingOptions, directory: Path) -> None:
        self.options = options
        self._files = SamplingFiles(directory)
        self._threshold = threshold_of(options.ratio)
        self._counts: Counter[str] = Counter()
        self._segment = 0
        self._reset()

    def _reset(self) -> None:
        # Waiting, in the order of their first spans. A plain dict that is emptied from its front becomes ever slower.
        self._traces: OrderedDict[str, _Trace] = OrderedDict()
        self._chunks: dict[int, _Chunk] = {}  # by segment
        self._decided: dict[str, str] = {}  # trace id -> verdict, the oldest first
        self._decision_files: deque[tuple[int, int]] = deque()  # segment, how many; the oldest first
        self._young = 0  # how many of the last ones are in no file
        self._slowness = Slowness(self.options.slow_percentile / 100)
        self._named: deque[tuple[set[int], set[int]]] = deque(maxlen=KEPT_SNAPSHOTS)

    def counts(self) -> dict[str, int]:
        """Spans kept and dropped by reason, and traces decided before their time, since the process started."""
        return dict(self._counts)

    @property
    def waiting(self) -> int:
        """Traces that are not decided."""
        return len(self._traces)

    def __call__(self, batch: Batch) -> Batch:
        """Raises RetryableError where what waits cannot be written."""
        spans = batch.tables.get(TRACES)
        released: list[pa.Table] = []
        self._segment = batch.segment
        if spans is not None and spans.num_rows:
            released += self._arrive(spans, batch)
        self._note(_violating(batch), batch.received_unix_nano)
        released += self._decide(max(batch.received_unix_nano, batch.last_received_unix_nano))
        self._tidy()
        if not released and spans is None:
            return batch
        tables = {name: rows for name, rows in batch.tables.items() if name != TRACES}
        if released:
            tables[TRACES] = pa.concat_tables(released)
        return replace(batch, tables=tables)

    # --- arriving --------------------------------------------------------------------------------------------

    def _arrive(self, spans: pa.Table, batch: Batch) -> list[pa.Table]:
        """Spans of decided traces go their way; the others wait."""
        if not self.options.enabled:
            return [spans]
        ids = spans["TraceId"].combine_chunks().dictionary_encode()
        known = ids.dictionary.to_pylist()
        # Without an id there is no trace to decide on: such a span is kept.
        verdicts = [self._decided.get(trace_id, "") if trace_id else WHOLE for trace_id in known]
        late: list[pa.Table] = []
        waiting = spans
        if any(verdicts):
            of_row = pa.array(verdicts, pa.string()).take(ids.indices)
            for verdict in (WHOLE, SHARE, DROPPED):
                late += self._released(spans.filter(pc.equal(of_row, verdict)), verdict, "late")
            waiting = spans.filter(pc.equal(of_row, ""))
        if waiting.num_rows:
            try:
                size_bytes = self._files.write_spans(batch.segment, waiting)
            except OSError as error:
                raise RetryableError(
                    f"spans that wait for sampling cannot be written: {error.strerror}", "free some disk space"
                ) from None
            chunk = _Chunk(batch.received_unix_nano, size_bytes)
            held = sum(c.table.nbytes for c in self._chunks.values() if c.table is not None)
            if held + waiting.nbytes <= TABLES_SIZE_BYTES:
                chunk.table = waiting
            self._chunks[batch.segment] = chunk
            self._learn(batch.segment, waiting)
        return late

    def _learn(self, segment: int, rows: pa.Table) -> None:
        """What a chunk's rows tell about their traces that are not decided."""
        chunk = self._chunks[segment]
        for found in _summaries(rows):
            trace_id = found["TraceId"]
            if trace_id in self._decided:
                continue
            trace = self._traces.get(trace_id)
            if trace is None:
                trace = self._traces[trace_id] = _Trace(chunk.received_ns, found["start_min"], found["end_max"])
            trace.start_ns = min(trace.start_ns, found["start_min"])
            trace.end_ns = max(trace.end_ns, found["end_max"])
            if not trace.reason:
                trace.reason = "error" if found["error_any"] else "startup" if found["startup_any"] else ""
            trace.chunks.append(segment)
            chunk.open += 1
        for trace_id, service, name, duration_ns in _roots(rows):
            if (trace := self._traces.get(trace_id)) is not None:
                trace.root, trace.root_ns = (service, name), duration_ns
        for trace_id, trace_state in _explicit_randomness(rows):
            if (trace := self._traces.get(trace_id)) is not None:
                trace.trace_state = trace_state

    def _note(self, trace_ids: Iterator[str], now_ns: int) -> None:
        """Traces with a quota violation, which may be told before their spans come."""
        for trace_id in trace_ids:
            if not self.options.enabled or not trace_id or trace_id in self._decided:
                continue
            trace = self._traces.get(trace_id)
            if trace is None:
                trace = self._traces[trace_id] = _Trace(now_ns, 0, 0)
            trace.reason = trace.reason or "quota"

    # --- deciding --------------------------------------------------------------------------------------------

    def _decide(self, now_ns: int) -> list[pa.Table]:
        """The spans of the traces that were decided and stay."""
        wait_ns = int(self.options.wait_s * 1e9)
        due: dict[tuple[str, str], list[str]] = {}  # (verdict, reason) -> trace ids
        chunks: set[int] = set()
        size_bytes = sum(chunk.size_bytes for chunk in self._chunks.values())
        while self._traces:
            trace_id, trace = next(iter(self._traces.items()))
            is_full = len(self._traces) > self.options.max_traces or size_bytes > self.options.max_size_bytes
            age_ns = now_ns - trace.first_ns
            # A clock that was set back makes nothing wait for ever.
            is_due = age_ns >= wait_ns or age_ns < -wait_ns or not self.options.enabled
            if not is_due and not is_full:
                break
            self._traces.popitem(last=False)
            verdict, reason = self._judge(trace_id, trace)
            due.setdefault((verdict, reason), []).append(trace_id)
            self._decided.pop(trace_id, None)
            self._decided[trace_id] = verdict
            self._young += 1
            self._counts["traces_decided_early"] += not is_due
            chunks.update(trace.chunks)
            for number in trace.chunks:
                self._chunks[number].open -= 1
                if not self._chunks[number].open:
                    size_bytes -= self._chunks[number].size_bytes
        released: list[pa.Table] = []
        ids = pa.array([trace_id for traces in due.values() for trace_id in traces], pa.string())
        group_of_id = pa.array(np.repeat(np.arange(len(due)), [len(traces) for traces in due.values()]))
        for number in sorted(chunks):
            rows = self._rows(number)
            group_of_row = group_of_id.take(pc.index_in(rows["TraceId"].combine_chunks(), value_set=ids))
            for group, (verdict, reason) in enumerate(due):
                released += self._released(rows.filter(pc.equal(group_of_row, group)), verdict, reason)
        for number in [number for number, chunk in self._chunks.items() if not chunk.open]:
            del self._chunks[number]
        return released

    def _judge(self, trace_id: str, trace: _Trace) -> tuple[str, str]:
        """(verdict, reason) of a trace; its duration becomes part of what is usual for its root operation."""
        if not self.options.enabled:
            return WHOLE, "sampling_off"
        duration_s = (trace.root_ns if trace.root else trace.end_ns - trace.start_ns) / 1e9
        is_slow = bool(self.options.slow_s) and duration_s >= self.options.slow_s
        if trace.root is not None:
            is_slow = self._slowness.is_slow(trace.root, duration_s, trace.first_ns) or is_slow
        if trace.reason or is_slow:
            return WHOLE, trace.reason or "slow"
        chance = randomness(trace_id, trace.trace_state)
        if chance is None:
            return WHOLE, "no_random_id"
        return (SHARE, "share") if chance >= self._threshold else (DROPPED, "share")

    def _released(self, rows: pa.Table, verdict: str, reason: str) -> list[pa.Table]:
        if not rows.num_rows:
            return []
        if verdict == DROPPED:
            self._counts[f"spans_dropped_{reason}"] += rows.num_rows
            return []
        self._counts[f"spans_kept_{reason}"] += rows.num_rows
        if not self.options.enabled:
            return [rows]
        return [marked(rows, self._threshold if verdict == SHARE and self._threshold < ALL else 0)]

    def _rows(self, number: int) -> pa.Table:
        table = self._chunks[number].table
        return self._files.read_spans(number) if table is None else table

    # --- what stays ------------------------------------------------------------------------------------------

    def _tidy(self) -> None:
        """Bound the decisions, write the young ones to a file when they are many, remove files nobody names."""
        oldest_chunk = min(self._chunks, default=self._segment + 1)
        while self._decision_files and len(self._decided) > self.options.max_decisions:
            number, count = self._decision_files[0]
            if number >= oldest_chunk:
                break  # rows of these traces may stand in a chunk that still waits: forgotten, they would come again
            self._decision_files.popleft()
            for trace_id in [trace_id for trace_id, _ in zip(self._decided, range(count), strict=False)]:
                del self._decided[trace_id]
        if self._young >= _YOUNG:
            young = dict(list(self._decided.items())[-self._young :])
            self._files.write_decisions(self._segment, young)
            self._decision_files.append((self._segment, len(young)))
            self._young = 0
        self._named.append((set(self._chunks), {number for number, _ in self._decision_files}))
        self._files.keep_only(
            set().union(*(spans for spans, _ in self._named)), set().union(*(files for _, files in self._named))
        )

    def snapshot(self) -> dict[str, Any]:
        """Everything that decides what comes next; what is large stands in the files that it names."""
        young = list(self._decided.items())[len(self._decided) - self._young :]
        noted = [[i, t.first_ns] for i, t in self._traces.items() if t.reason == "quota"]
        return {
            "spans": [[number, chunk.received_ns, chunk.size_bytes] for number, chunk in self._chunks.items()],
            "decisions": [list(pair) for pair in self._decision_files],
            "young": [list(pair) for pair in young],
            "noted": noted,
            "slowness": self._slowness.snapshot(),
        }

    def restore(self, state: dict[str, Any] | None) -> None:
        """Back to a snapshot; None is the beginning."""
        self._reset()
        self._named.extend(list(self._files.named_in_snapshots())[-KEPT_SNAPSHOTS:])
        state = state or {}
        self._slowness.restore(state.get("slowness"))
        for number, count in state.get("decisions", []):
            with _as_far_as_there(number):
                self._decided.update(self._files.read_decisions(number))
            self._decision_files.append((number, count))
        self._decided.update((trace_id, verdict) for trace_id, verdict in state.get("young", []))
        self._young = len(state.get("young", []))
        for trace_id, first_ns in state.get("noted", []):
            self._traces[trace_id] = _Trace(first_ns, 1 << 62, 0, "quota")
        for number, received_ns, size_bytes in state.get("spans", []):
            with _as_far_as_there(number):
                rows = self._files.read_spans(number)
                self._chunks[number] = _Chunk(received_ns, size_bytes)
                self._learn(number, rows)
        self._traces = OrderedDict(sorted(self._traces.items(), key=lambda pair: pair[1].first_ns))


@contextmanager
def _as_far_as_there(number: int) -> Iterator[None]:
    """A file that the disk lost or damaged is said, and what the others hold goes on."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        _log.error("what sampling kept of segment %d cannot be read and is lost: %s", number, error)


def _summaries(rows: pa.Table) -> list[dict[str, Any]]:
    """Of each trace: first start, last end, whether a span failed, whether one belongs to a start."""
    start = rows["TimestampUnixNano"]
    found = pa.table(
        {
            "TraceId": rows["TraceId"],
            "start": start,
            "end": pc.add(start, rows["Duration"]),
            "error": pc.equal(rows["StatusCode"], "Error"),
            "startup": pc.starts_with(rows["SpanName"], semconv.SPAN_STARTUP),
        }
    )
    wanted = [("start", "min"), ("end", "max"), ("error", "any"), ("startup", "any")]
    answer: list[dict[str, Any]] = found.group_by("TraceId", use_threads=False).aggregate(wanted).to_pylist()
    return answer


def _roots(rows: pa.Table) -> Iterator[tuple[str, str, str, int]]:
    found = rows.select(["TraceId", "ServiceName", "SpanName", "Duration", "ParentSpanId"])
    found = found.filter(pc.equal(found["ParentSpanId"], ""))
    yield from zip(*(found[name].to_pylist() for name in found.schema.names[:-1]), strict=True)


def _explicit_randomness(rows: pa.Table) -> Iterator[tuple[str, str]]:
    found = rows.select(["TraceId", "TraceState"])
    found = found.filter(pc.fill_null(pc.match_substring(found["TraceState"], "rv:"), False))
    yield from zip(found["TraceId"].to_pylist(), found["TraceState"].to_pylist(), strict=True)


def _violating(batch: Batch) -> Iterator[str]:
    """Trace ids of quota violations: those the quota processor found, and those that senders told of."""
    yield from sorted(batch.violating)
    logs = batch.tables.get(LOGS)
    if logs is not None and logs.num_rows:
        told = logs.filter(pc.equal(logs["EventName"], semconv.EVENT_QUOTA_VIOLATION))
        yield from told["TraceId"].to_pylist()
