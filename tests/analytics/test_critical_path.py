"""The critical path: each rule at the edges a case, and its invariants on any tree."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubscope.analytics.critical_path import Node, critical_path, self_time_ns
from hubscope.analytics.traces import build_trace, shortened

ROOT = Node("root", "Internal", 0, 1000)


def node(name: str, start: int, end: int, kind: str = "Internal") -> Node:
    return Node(name, kind, start, end)


def path(*children: Node, root: Node = ROOT) -> list[tuple[str, int, int]]:
    return critical_path(root, {"root": children})


def test_a_span_alone_is_its_own_path() -> None:
    """Without children the root is on the path for all of its time."""
    assert path() == [("root", 0, 1000)]


def test_the_last_finishing_child_blocks() -> None:
    """Of parallel children only the one that ends last is on the path, and the parent's own time around it."""
    assert path(node("a", 100, 500), node("b", 100, 900)) == [("root", 0, 100), ("b", 100, 900), ("root", 900, 1000)]


def test_a_child_that_ends_late_is_cut_and_one_that_starts_late_is_dropped() -> None:
    """Rule 1: cut to the parent, enclosing ones too; what starts at or after its end does not count."""
    assert path(node("a", 800, 5000)) == [("root", 0, 800), ("a", 800, 1000)]
    assert path(node("a", -50, 5000)) == [("a", 0, 1000)]
    assert path(node("a", 1000, 2000)) == [("root", 0, 1000)]


def test_a_small_overlap_is_clock_skew() -> None:
    """Rule 2: siblings overlapping by less than 1 % of the parent are consecutive, the earlier cut; from 1 % on not."""
    assert path(node("a", 0, 509), node("b", 500, 1000)) == [("a", 0, 500), ("b", 500, 1000)]
    assert path(node("a", 0, 510), node("b", 500, 1000)) == [("root", 0, 500), ("b", 500, 1000)]


def test_an_exact_end_is_on_the_path() -> None:
    """Rule 3: a sibling that ends exactly where the next starts."""
    assert path(node("a", 0, 500), node("b", 500, 1000)) == [("a", 0, 500), ("b", 500, 1000)]


def test_of_equal_ends_the_first_started() -> None:
    """Rule 4: of children that end together the one that started first."""
    assert path(node("b", 300, 1000), node("a", 200, 1000)) == [("root", 0, 200), ("a", 200, 1000)]


def test_a_server_outside_its_client_is_left_out() -> None:
    """Rule 5: its clock disagrees; one that overlaps is cut like any child."""
    client = node("root", 0, 1000, "Client")
    assert path(node("s", 1500, 1900, "Server"), root=client) == [("root", 0, 1000)]
    assert path(node("s", -900, -100, "Server"), root=client) == [("root", 0, 1000)]
    assert path(node("s", -100, 700, "Server"), root=client) == [("s", 0, 700), ("root", 700, 1000)]


def test_only_a_consumer_of_a_producer_does_not_block() -> None:
    """Rule 6: the producer does not wait for it; under any other parent a consumer blocks."""
    producer = node("root", 0, 1000, "Producer")
    assert path(node("c", 100, 900, "Consumer"), root=producer) == [("root", 0, 1000)]
    assert path(node("c", 100, 1000, "Consumer")) == [("root", 0, 100), ("c", 100, 1000)]


@st.composite
def trees(draw: st.DrawFn) -> dict[str, list[Node]]:
    """Children by parent for up to 25 spans of any placement under the root."""
    children: dict[str, list[Node]] = {}
    names = ["root"]
    kinds = st.sampled_from(["Internal", "Client", "Server", "Producer", "Consumer"])
    for number in range(draw(st.integers(0, 25))):
        start = draw(st.integers(-200, 1200))
        child = Node(f"s{number}", draw(kinds), start, start + draw(st.integers(0, 800)))
        children.setdefault(draw(st.sampled_from(names)), []).append(child)
        names.append(child.span_id)
    return children


@given(trees())
def test_segments_tile_the_root(children: dict[str, list[Node]]) -> None:
    """In time order, none empty, none overlapping, without a gap, from the root's start to its end."""
    segments = critical_path(ROOT, children)
    assert segments[0][1] == ROOT.start
    assert segments[-1][2] == ROOT.end
    assert all(start < end for _, start, end in segments)
    assert all(a[2] == b[1] for a, b in itertools.pairwise(segments))


@given(trees())
def test_a_segment_lies_within_its_span(children: dict[str, list[Node]]) -> None:
    """No span is charged with time in which it did not run."""
    spans = {child.span_id: child for siblings in children.values() for child in siblings} | {"root": ROOT}
    for span_id, start, end in critical_path(ROOT, children):
        assert spans[span_id].start <= start < end <= spans[span_id].end


def test_self_time_counts_overlapping_children_once() -> None:
    """Self time is what no child covers; parallel children cover it once, late ones only inside the parent."""
    assert self_time_ns(ROOT, [node("a", 100, 400), node("b", 300, 600), node("c", 900, 5000)]) == 400


def test_a_chain_of_ten_thousand_spans_needs_no_recursion() -> None:
    """Depth is no limit."""
    spans = [Node(f"s{i}", "Internal", i, 30_000 - i) for i in range(10_000)]
    children = {parent.span_id: [child] for parent, child in itertools.pairwise(spans)}
    assert len(critical_path(spans[0], children)) == 19_999


def row(span_id: str, parent: str, start: int, duration: int, **more: Any) -> dict[str, Any]:
    plain = {
        "name": span_id, "kind": "Internal", "service": "hub", "attributes": {}, "status_code": "Unset",
        "status_message": "", "events": [], "links": [],
    }  # fmt: skip
    return {**plain, "span_id": span_id, "parent_span_id": parent, "start_ns": start, "duration_ns": duration, **more}


def test_problems_are_named() -> None:
    """Missing parents, second roots, negative durations, duplicates and skewed servers are each said, none hidden."""
    rows = [
        row("a", "", 0, 100, kind="Client"),
        row("a", "", 0, 100),
        row("b", "a", 500, 10, kind="Server"),
        row("c", "gone", 0, 5),
        row("d", "a", 50, -7),
    ]
    trace = build_trace("0" * 32, rows)
    text = "\n".join(trace.problems)
    assert not trace.complete
    assert trace.root == "a"
    for part in ("more than once", "missing parent gone", "ends before it starts", "outside its client", "2 roots"):
        assert part in text
    assert sum(s.end_unix_nano - s.start_unix_nano for s in trace.critical_path) == 100


@pytest.mark.parametrize(("name", "takes_it"), [("hub.startup.first_render", False), ("first_render", True)])
def test_a_milestone_is_no_part_of_a_start(name: str, takes_it: bool) -> None:
    """The time to the first render covers a start's phases and takes none from them; any other span there would."""
    rows = [
        row("start", "", 0, 100, name="hub.startup"),
        row("seen", "start", 0, 95, name=name),
        row("load", "start", 10, 60, name="hub.startup.phase load"),
    ]
    trace = build_trace("0" * 32, rows)
    own = {
        span.span_id: (round(span.self_time * 1e9), round(span.exclusive_critical_time * 1e9)) for span in trace.spans
    }
    assert own == {
        "start": (5, 5) if takes_it else (40, 40),
        "seen": (95, 95) if takes_it else (0, 0),
        "load": (60, 0) if takes_it else (60, 60),
    }


def test_a_circle_of_parents_ends() -> None:
    """Spans that are each other's parents are shown and named, and nothing runs for ever."""
    trace = build_trace("0" * 32, [row("a", "b", 0, 10), row("b", "a", 0, 10)])
    assert not trace.complete
    assert len(trace.spans) == 2
    assert "circle" in trace.problems[-1]


@pytest.mark.parametrize("limit", [1, 5, 50])
def test_a_shortened_trace_stays_a_tree(limit: int) -> None:
    """The root stays, every listed span's parent is listed, and what is left out is counted."""
    rows = [row("r", "", 0, 1000)] + [row(f"p{i}", "r", i * 10, 9) for i in range(40)]
    rows += [row(f"q{i}", f"p{i}", i * 10, i % 9) for i in range(40)]
    whole = build_trace("0" * 32, rows)
    short = shortened(whole, limit)
    listed = {span.span_id for span in short.spans}
    assert "r" in listed
    assert all(span.parent_span_id in listed or not span.parent_span_id for span in short.spans)
    assert len(short.spans) + short.spans_left_out == len(whole.spans)
    assert short.critical_path == whole.critical_path
