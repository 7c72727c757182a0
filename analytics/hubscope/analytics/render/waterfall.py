"""A trace as the rows of a waterfall: siblings of one name fold into a group, and long traces stay short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hubscope import semconv
from hubscope.analytics.model import Trace, TraceSpan

FOLD_FROM = 5  # siblings of one name from which they share a row: the N+1 detector's own lower bound
VISIBLE_ROWS = 40  # about one screen; what lies beyond is one fold away
ROWS_PER_GROUP = 50
BARS_PER_LANE = 120  # more cannot be told apart on a lane of 600 px
MAX_DEPTH = 8  # deeper rows keep this indentation


@dataclass(frozen=True)
class Bar:
    """A stretch of the lane; `start` and `length` are shares (0..1) of the root's duration."""

    start: float
    length: float


@dataclass(frozen=True)
class Row:
    """One span, or a group of siblings of one name (`rows` holds them, `hidden` says how many more there are)."""

    name: str
    depth: int
    count: int
    duration_s: float  # a span's own; a group's total
    self_time_s: float
    category: str  # query | vector | plugin | import | phase | other
    error: bool
    offender: bool
    bars: tuple[Bar, ...]
    critical: tuple[Bar, ...]
    detail: str  # the sentence that a pointer or a screen reader gets
    rows: tuple[Row, ...] = ()
    hidden: int = 0


# The first attribute that a span has decides its colour.
_CATEGORIES: tuple[tuple[str, str], ...] = (
    (semconv.HUB_VECTOR_TOP_K, "vector"),
    (semconv.HUB_VECTOR_DIMENSIONS, "vector"),
    (semconv.DB_SYSTEM_NAME, "query"),
    (semconv.HUB_PLUGIN_ID, "plugin"),
    (semconv.HUB_IMPORT_MODULE, "import"),
    (semconv.HUB_STARTUP_PHASE, "phase"),
)


def category(span: TraceSpan) -> str:
    """What a span is about, for its colour."""
    return next((name for attribute, name in _CATEGORIES if span.attributes.get(attribute)), "other")


def rows(trace: Trace, offenders: Sequence[str] = ()) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """The rows to show and the rows to fold away, each in tree order: the longest, and offenders, are shown."""
    found = every_row(trace, offenders)
    weights = sorted(range(len(found)), key=lambda i: (i != 0, not found[i].offender, -found[i].duration_s, i))
    kept = set(weights[:VISIBLE_ROWS])
    shown = tuple(row for i, row in enumerate(found) if i in kept)
    return shown, tuple(row for i, row in enumerate(found) if i not in kept)


def every_row(trace: Trace, offenders: Sequence[str] = (), fold_from: int = FOLD_FROM) -> tuple[Row, ...]:
    """All rows in tree order: by start, parents before children, `fold_from` siblings of one name as one."""
    lanes = _Lanes(trace, frozenset(offenders), fold_from)
    return tuple(row for root in lanes.roots for row in lanes.below(root, 0))


class _Lanes:
    def __init__(self, trace: Trace, offenders: frozenset[str], fold_from: int) -> None:
        self.fold_from = fold_from
        by_id = {span.span_id: span for span in trace.spans}
        root = by_id.get(trace.root) or (trace.spans[0] if trace.spans else None)
        self.start = root.start_unix_nano if root else 0
        end = max((span.end_unix_nano for span in trace.spans), default=self.start)
        self.length = max(end - self.start, 1)
        self.offenders = offenders
        self.children: dict[str, list[TraceSpan]] = {}
        self.roots: list[TraceSpan] = []
        for span in sorted(trace.spans, key=lambda s: (s.start_unix_nano, -s.end_unix_nano)):
            if span.parent_span_id in by_id and span.parent_span_id != span.span_id:
                self.children.setdefault(span.parent_span_id, []).append(span)
            else:
                self.roots.append(span)
        self.critical: dict[str, list[Bar]] = {}
        for segment in trace.critical_path:
            bar = self.bar(segment.start_unix_nano, segment.end_unix_nano)
            self.critical.setdefault(segment.span_id, []).append(bar)

    def bar(self, start_ns: int, end_ns: int) -> Bar:
        start = min(max((start_ns - self.start) / self.length, 0.0), 1.0)
        return Bar(start, min(max((end_ns - start_ns) / self.length, 0.0), 1.0 - start))

    def below(self, span: TraceSpan, depth: int) -> list[Row]:
        """The row of `span` and those of everything under it, in order; each sub-tree is walked without recursion."""
        found: list[Row] = []
        waiting: list[tuple[TraceSpan | Row, int]] = [(span, depth)]
        while waiting:
            item, level = waiting.pop()
            if isinstance(item, Row):
                found.append(item)
                continue
            found.append(self.one(item, level))
            waiting += reversed([(child, level + 1) for child in self.folded(item, level + 1)])
        return found

    def folded(self, parent: TraceSpan, depth: int) -> list[TraceSpan | Row]:
        """The children of `parent`, those of one name as one group where they are many."""
        children = self.children.get(parent.span_id, [])
        by_name: dict[str, list[TraceSpan]] = {}
        for child in children:
            by_name.setdefault(child.name, []).append(child)
        result: list[TraceSpan | Row] = []
        for child in children:
            alike = by_name[child.name]
            if len(alike) < self.fold_from:
                result.append(child)
            elif child is alike[0]:
                result.append(self.group(alike, depth))
        return result

    def one(self, span: TraceSpan, depth: int) -> Row:
        duration_s = (span.end_unix_nano - span.start_unix_nano) / 1e9
        critical = tuple(self.critical.get(span.span_id, ()))
        return Row(
            name=span.name,
            depth=min(depth, MAX_DEPTH),
            count=1,
            duration_s=duration_s,
            self_time_s=span.self_time,
            category=category(span),
            error=span.status.code == "Error",
            offender=span.span_id in self.offenders,
            bars=(self.bar(span.start_unix_nano, span.end_unix_nano),),
            critical=critical,
            detail=_detail(span),
        )

    def group(self, spans: list[TraceSpan], depth: int) -> Row:
        first = spans[0]
        members = [row for span in spans[:ROWS_PER_GROUP] for row in self.below(span, depth + 1)]
        return Row(
            name=first.name,
            depth=min(depth, MAX_DEPTH),
            count=len(spans),
            duration_s=sum(s.end_unix_nano - s.start_unix_nano for s in spans) / 1e9,
            self_time_s=sum(s.self_time for s in spans),
            category=category(first),
            error=any(s.status.code == "Error" for s in spans),
            offender=any(s.span_id in self.offenders for s in spans),
            bars=_thinned([self.bar(s.start_unix_nano, s.end_unix_nano) for s in spans]),
            critical=_thinned([bar for s in spans for bar in self.critical.get(s.span_id, ())]),
            detail=f"{len(spans)} × {first.name}",
            rows=tuple(members[:ROWS_PER_GROUP]),
            hidden=len(spans) - min(len(spans), ROWS_PER_GROUP),
        )


def _thinned(bars: list[Bar]) -> tuple[Bar, ...]:
    """At most `BARS_PER_LANE` bars: neighbours closer than a lane can show become one."""
    if len(bars) <= BARS_PER_LANE:
        return tuple(bars)
    merged: list[Bar] = []
    gap = 1 / BARS_PER_LANE
    for bar in sorted(bars, key=lambda b: b.start):
        last = merged[-1] if merged else None
        if last is not None and bar.start - (last.start + last.length) < gap:
            merged[-1] = Bar(last.start, max(last.start + last.length, bar.start + bar.length) - last.start)
        else:
            merged.append(bar)
    return tuple(merged)


def _detail(span: TraceSpan) -> str:
    """Name, service and the attributes worth a glance: the statement, and what names the thing."""
    shown = (semconv.DB_QUERY_TEXT, semconv.DB_COLLECTION_NAME, semconv.HUB_PLUGIN_HOOK, semconv.HUB_IMPORT_MODULE)
    values = [f"{key}: {span.attributes[key][:200]}" for key in shown if span.attributes.get(key)]
    message = [f"{span.status.code}: {span.status.message[:200]}"] if span.status.code == "Error" else []
    return "; ".join([f"{span.name} ({span.service})", *values, *message])
