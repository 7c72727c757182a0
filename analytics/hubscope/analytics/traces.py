"""One trace out of the lake: a tree in order, what is wrong with it, self times and the critical path."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from hubscope.analytics.critical_path import Node, critical_path, outside_its_client, self_time_ns
from hubscope.analytics.engine import Engine
from hubscope.analytics.model import Segment, SpanEvent, SpanLink, SpanStatus, Trace, TraceSpan
from hubscope.errors import ConfigError, LakeError
from hubscope.semconv import SPAN_FIRST_RENDER

# Spans that mark a moment by the time from process creation to it. They cover whatever ran before that moment and are
# no part of it: as siblings of the phases they would take a whole start's critical path and leave none to the phases.
MILESTONES: Final = frozenset({SPAN_FIRST_RENDER})

_TRACE_ID = re.compile(r"[0-9a-f]{32}")


def load_trace(engine: Engine, trace_id: str) -> Trace:
    """The trace of that id (32 hex digits, either case).

    Raises ConfigError where the id is none, LakeError where the lake holds no span of it.
    """
    wanted = trace_id.strip().lower()
    if not _TRACE_ID.fullmatch(wanted):
        raise ConfigError(f"{trace_id!r} is no trace id", "give its 32 hex digits; `hubscope report` prints them")
    rows = engine.rows("trace_spans", trace_id=wanted)
    if not rows:
        raise LakeError(
            f"the lake holds no span of trace {wanted}",
            "`hubscope status` says what the lake holds; a trace just sent needs about two seconds",
        )
    return build_trace(wanted, rows)


def build_trace(trace_id: str, rows: Sequence[dict[str, Any]]) -> Trace:
    """A trace from the rows of sql/trace_spans.sql, at least one.

    Spans in tree order: a parent, then its children by their start. Duplicates, missing parents, cycles, several
    roots, negative durations and clock skew are named in `problems`, and the trace is then not `complete`.
    A milestone (see MILESTONES) below another span is listed, with no time of its own and none on the critical path.
    """
    problems: list[str] = []
    complete = True
    by_id: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["span_id"] in by_id:
            problems.append(f"span {row['span_id']} is stored more than once; the first is shown")
        else:
            by_id[row["span_id"]] = row
        if row["duration_ns"] < 0:
            problems.append(f"clock skew: span {row['span_id']} ({row['name']}) ends before it starts; taken as 0 s")
    nodes = {
        span_id: Node(span_id, row["kind"], row["start_ns"], row["start_ns"] + max(row["duration_ns"], 0))
        for span_id, row in by_id.items()
    }

    children: dict[str, list[Node]] = defaultdict(list)
    roots: list[Node] = []
    for span_id, row in by_id.items():
        parent = row["parent_span_id"]
        if parent in nodes and parent != span_id:
            children[parent].append(nodes[span_id])
            continue
        roots.append(nodes[span_id])
        if parent:
            complete = False
            problems.append(f"missing parent {parent} of span {span_id} ({row['name']})")
    for siblings in children.values():
        siblings.sort(key=lambda node: (node.start, node.span_id))

    # A true root before an orphan, then the longest: the one that the others most likely belong to.
    roots.sort(key=lambda n: (bool(by_id[n.span_id]["parent_span_id"]), -(n.end - n.start), n.start, n.span_id))
    order = _tree_order(roots, children)
    unreachable = [span_id for span_id in nodes if span_id not in order]
    if unreachable:
        complete = False
        problems.append(f"{len(unreachable)} spans are each other's parents in a circle, among them {unreachable[0]}")
        if not roots:
            roots = [nodes[unreachable[0]]]
            children = defaultdict(list)
        order.update(dict.fromkeys(unreachable))
    if len(roots) > 1:
        complete = False
        problems.append(f"{len(roots)} roots; the path is that of {roots[0].span_id}")

    for parent_id, siblings in children.items():
        for child in siblings:
            if outside_its_client(child, nodes[parent_id]):
                problems.append(
                    f"clock skew: server span {child.span_id} lies outside its client {parent_id}; left out of the path"
                )

    root = roots[0]
    parts = {
        parent_id: [child for child in siblings if by_id[child.span_id]["name"] not in MILESTONES]
        for parent_id, siblings in children.items()
    }
    path = critical_path(root, parts)
    exclusive_ns: dict[str, int] = defaultdict(int)
    for span_id, start, end in path:
        exclusive_ns[span_id] += end - start
    return Trace(
        trace_id=trace_id,
        service=by_id[root.span_id]["service"] or "",
        root=root.span_id,
        duration=(root.end - root.start) / 1e9,
        complete=complete,
        problems=tuple(problems),
        spans=tuple(
            _span(by_id[span_id], nodes[span_id], _self_ns(by_id[span_id], nodes[span_id], parts), exclusive_ns)
            for span_id in order
        ),
        critical_path=tuple(Segment(*segment) for segment in path),
    )


def _self_ns(row: dict[str, Any], node: Node, parts: dict[str, list[Node]]) -> int:
    if row["name"] in MILESTONES and row["parent_span_id"]:
        return 0
    return self_time_ns(node, parts.get(node.span_id, ()))


def _tree_order(roots: Sequence[Node], children: dict[str, list[Node]]) -> dict[str, None]:
    """Span ids, each parent before its children, siblings by start; without recursion."""
    order: dict[str, None] = {}
    pending = list(reversed(roots))
    while pending:
        node = pending.pop()
        if node.span_id not in order:
            order[node.span_id] = None
            pending.extend(reversed(children.get(node.span_id, ())))
    return order


def _span(row: dict[str, Any], node: Node, self_ns: int, exclusive_ns: dict[str, int]) -> TraceSpan:
    return TraceSpan(
        span_id=node.span_id,
        parent_span_id=row["parent_span_id"] or "",
        name=row["name"] or "",
        service=row["service"] or "",
        kind=row["kind"] or "Unspecified",
        start_unix_nano=node.start,
        end_unix_nano=node.end,
        self_time=self_ns / 1e9,
        exclusive_critical_time=exclusive_ns.get(node.span_id, 0) / 1e9,
        attributes=dict(sorted((row["attributes"] or {}).items())),
        events=tuple(
            SpanEvent(e["Name"] or "", e["TimestampUnixNano"] or 0, dict(e["Attributes"] or {}))
            for e in row["events"] or ()
        ),
        links=tuple(
            SpanLink(k["TraceId"] or "", k["SpanId"] or "", dict(k["Attributes"] or {})) for k in row["links"] or ()
        ),
        status=SpanStatus(
            row["status_code"] if row["status_code"] in ("Ok", "Error") else "Unset", row["status_message"] or ""
        ),
    )


def shortened(trace: Trace, spans: int) -> Trace:
    """The trace with at most about `spans` spans: the root, the critical path, then the longest; ancestors are kept.

    `spans_left_out` says how many are not listed; the critical path stays whole.
    """
    if len(trace.spans) <= spans:
        return trace
    by_id = {span.span_id: span for span in trace.spans}
    kept: dict[str, None] = {trace.root: None}
    by_path = sorted(trace.spans, key=lambda s: -s.exclusive_critical_time)
    by_length = sorted(trace.spans, key=lambda s: s.start_unix_nano - s.end_unix_nano)
    on_path = [span for span in by_path if span.exclusive_critical_time > 0]
    for span in (*on_path, *by_length):
        if len(kept) >= spans:
            break
        current: TraceSpan | None = span
        while current is not None and current.span_id not in kept:
            kept[current.span_id] = None
            current = by_id.get(current.parent_span_id)
    listed = tuple(span for span in trace.spans if span.span_id in kept)
    return dataclasses.replace(trace, spans=listed, spans_left_out=len(trace.spans) - len(listed))
