"""One trace on a terminal: figures on the left, the tree on the right, the critical path marked."""

from __future__ import annotations

from hubscope.analytics.model import Trace
from hubscope.analytics.render import numbers, waterfall


def render(trace: Trace, every_span: bool = False) -> str:
    """The trace as text with a newline at its end. Siblings of one name share a line unless `every_span`."""
    state = "complete" if trace.complete else "incomplete"
    total = len(trace.spans) + trace.spans_left_out
    lines = [
        f"trace {trace.trace_id}",
        f"{numbers.printable(trace.service)}, {numbers.quantity(trace.duration, 's')}, "
        f"{numbers.count(total, 'span')}, {state}",
        *(f"! {numbers.printable(problem)}" for problem in trace.problems),
        "",
        f"{'duration':>9} {'self':>9} {'critical':>9}",
    ]
    fold_from = total + 1 if every_span else waterfall.FOLD_FROM
    folds = False
    for row in waterfall.every_row(trace, fold_from=fold_from):
        critical_s = sum(bar.length for bar in row.critical) * trace.duration
        name = f"{row.count} × {row.name}" if row.count > 1 else row.name
        folds = folds or row.count > 1
        failed = "  (failed)" if row.error else ""
        tree = f"{'●' if row.critical else '·'} {'  ' * row.depth}{numbers.printable(name)}{failed}"
        lines.append(
            f"{numbers.quantity(row.duration_s, 's'):>9} {numbers.quantity(row.self_time_s, 's'):>9} "
            f"{numbers.quantity(critical_s, 's') if row.critical else '':>9} "
            f"{tree}"
        )
    lines += ["", "● on the critical path" + ("; --all lists the spans behind each ×" if folds else "")]
    return "\n".join(lines) + "\n"
