"""How much time plugins add to one task, request or root operation (hub.plugin.overhead). Plain, shared by both forms.

For an operation it is the length of the union of its trace's plugin calls within it: calls inside calls and calls side
by side count once. A plugin span ends before the operation that waits for it, and so arrives before it or with it.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

# Operations in flight at once. Traces whose operation never ends here are pushed out by newer ones.
MAX_TRACES: Final = 5_000
MAX_CALLS_A_TRACE: Final = 2_000


class Added(NamedTuple):
    plugin: str  # '' is all plugins together
    seconds: float


STARTUP: Final = "hub.startup"


def is_operation(name: str, kind: str, parent_span_id: str, task: str) -> bool:
    """Whether a span is what a user waits for: a request, a message, a task or any other root; starts are left out."""
    return (is_entry(kind, parent_span_id) or bool(task)) and not name.startswith(STARTUP)


def is_entry(kind: str, parent_span_id: str) -> bool:
    """Whether nothing of this process waits for the span: no call within it can matter to a later operation."""
    return kind in ("Server", "Consumer") or not parent_span_id


def union_ns(intervals: list[tuple[int, int]]) -> int:
    """The length of the union of [start, end) intervals."""
    total, reached = 0, -(2**63)
    for start, end in sorted(intervals):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


class Overhead:
    """The plugin calls of traces whose operation has not ended yet. Bounded; what is dropped is counted."""

    def __init__(self, max_traces: int = MAX_TRACES) -> None:
        self.max_traces = max_traces
        self.evicted = 0
        self._calls: dict[tuple[str, str], list[tuple[str, int, int]]] = {}  # (trace, instance) -> its calls

    def has(self, trace_id: str, instance: str) -> bool:
        return (trace_id, instance) in self._calls

    def traces(self) -> list[str]:
        return list(dict.fromkeys(trace_id for trace_id, _ in self._calls))

    def call(self, trace_id: str, instance: str, plugin: str, start_ns: int, end_ns: int) -> None:
        calls = self._calls.setdefault((trace_id, instance), [])
        if len(calls) >= MAX_CALLS_A_TRACE:
            self.evicted += 1
            return
        calls.append((plugin, start_ns, end_ns))
        if len(self._calls) > self.max_traces:
            self.evicted += len(self._calls.pop(next(iter(self._calls))))

    def operation(self, trace_id: str, instance: str, start_ns: int, end_ns: int, *, is_last: bool) -> list[Added]:
        """What plugins added to an operation that has ended: for all together, then for each; [] if none ran in it.

        `is_last`: no later operation of the process waits for these calls (`is_entry`), so they are forgotten.
        """
        calls = self._calls.get((trace_id, instance), [])
        if is_last:
            self._forget(trace_id, instance, end_ns)
        inside: dict[str, list[tuple[int, int]]] = {}
        for plugin, start, end in calls:
            if end > start_ns and start < end_ns:
                inside.setdefault(plugin, []).append((max(start, start_ns), min(end, end_ns)))
        if not inside:
            return []
        everything = [interval for intervals in inside.values() for interval in intervals]
        return [
            Added("", union_ns(everything) / 1e9),
            *(Added(plugin, union_ns(intervals) / 1e9) for plugin, intervals in inside.items()),
        ]

    def _forget(self, trace_id: str, instance: str, up_to_ns: int) -> None:
        """Calls that ended by then; those of another request of the same trace, still running, stay."""
        left = [call for call in self._calls.pop((trace_id, instance), []) if call[2] > up_to_ns]
        if left:
            self._calls[trace_id, instance] = left

    def snapshot(self) -> dict[str, Any]:
        return {"evicted": self.evicted, "calls": [[*key, calls] for key, calls in self._calls.items()]}

    def restore(self, state: dict[str, Any] | None) -> None:
        state = state or {}
        self.evicted = state.get("evicted", 0)
        self._calls = {(t, i): [(p, s, e) for p, s, e in calls] for t, i, calls in state.get("calls", [])}
