"""The critical path of a trace, and each span's self time.

Walk back from the child that ends last to the one that ended last before it started, and so on; what no child covers
is the parent's own. Published tools disagree at the edges. Ours, each a test case in tests/analytics:

1. a child that ends after its parent, or encloses it, is cut to it; one that starts after its end is dropped;
2. siblings that overlap by less than 1 % of their parent are taken as consecutive (clock skew): both are on the path,
   the earlier cut at the later's start;
3. a sibling that ends exactly where the next starts is on the path;
4. of children that end together the one that started first is on the path;
5. a server span lying outside its client is left out and named in the trace's problems;
6. only a consumer child of a producer does not block its parent.

Segments never overlap and sum to the root's duration. No recursion: a trace may be 10,000 spans deep.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

OVERLAP_TOLERANCE: Final = 0.01


@dataclasses.dataclass(frozen=True)
class Node:
    """What the walk needs of a span; times in ns, end ≥ start."""

    span_id: str
    kind: str
    start: int
    end: int


Path = list[tuple[str, int, int]]  # span id, start ns, end ns


def outside_its_client(child: Node, parent: Node) -> bool:
    """Rule 5: a server span that does not overlap the client call it answers; the two clocks disagree."""
    return (
        child.kind == "Server" and parent.kind == "Client" and (child.start >= parent.end or child.end <= parent.start)
    )


def blocks(child: Node, parent: Node) -> bool:
    """Whether the parent may have waited for the child (rules 5 and 6)."""
    return not (parent.kind == "Producer" and child.kind == "Consumer") and not outside_its_client(child, parent)


def critical_path(root: Node, children: Mapping[str, Sequence[Node]]) -> Path:
    """Segments in time order. `children` lists each span's children by its id; cycles must not be reachable."""
    segments: Path = []
    # Each entry is a span and the stretch of the path that it and its descendants answer for.
    pending = [(root, root.start, root.end)]
    while pending:
        node, start, end = pending.pop()
        cursor = end
        tolerance = OVERLAP_TOLERANCE * (end - start)
        candidates = [
            (min(child.end, end), max(child.start, start), child)
            for child in children.get(node.span_id, ())
            if blocks(child, node) and child.start < end and child.end > start
        ]
        candidates.sort(key=lambda c: (-c[0], c[1], c[2].span_id))
        for child_end, child_start, child in candidates:
            # The cursor only moves back: a child that ends too far behind it never comes into question again.
            if child_end - cursor > tolerance or (child_end > cursor and child_end - cursor == tolerance):
                continue
            child_end = min(child_end, cursor)
            if child_start >= child_end:
                continue
            if child_end < cursor:
                segments.append((node.span_id, child_end, cursor))
            pending.append((child, child_start, child_end))
            cursor = child_start
        if cursor > start:
            segments.append((node.span_id, start, cursor))
    segments.sort(key=lambda segment: segment[1])
    return segments


def self_time_ns(node: Node, children: Sequence[Node]) -> int:
    """Time of `node` during which none of its children ran (their union, cut to the node)."""
    covered, reached = 0, node.start
    for child in sorted(children, key=lambda c: c.start):
        start, end = max(child.start, reached), min(child.end, node.end)
        if end > start:
            covered += end - start
            reached = end
    return node.end - node.start - covered
