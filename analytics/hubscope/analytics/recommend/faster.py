"""What is brought to its target (vector searches, start-up phases and parts): the excess on the critical path.

The retimer in its simplest form: in the worst trace, which share of the offender's time is on the critical path? Only
that much of a saving reaches the user.
"""

from __future__ import annotations

import statistics

from hubscope.analytics.findings import duration
from hubscope.analytics.metrics import observe
from hubscope.analytics.model import Bottleneck
from hubscope.analytics.recommend.advice import Advice, Case, not_made, recommended, together
from hubscope.analytics.traces import build_trace


def recommend(case: Case) -> Advice:
    searches = [_search(case, finding) for finding in case.of("slow_vector_search")]
    phases = [
        _phase(case, finding) if "phase" in finding.facts else _part(case, finding) for finding in case.of("slow_phase")
    ]
    return together([*searches, *phases])


def share_on_path(case: Case, finding: Bottleneck) -> float | None:
    """Share of the offender's time that is on its trace's critical path, with all that runs inside it."""
    for evidence in finding.evidence:
        trace = build_trace(evidence.trace_id, case.scope.data.engine.rows("trace_spans", trace_id=evidence.trace_id))
        offender = next((s for s in trace.spans if s.span_id in evidence.offender_span_ids), None)
        if offender is None or offender.end_unix_nano == offender.start_unix_nano:
            continue
        inside = {offender.span_id}
        for span in trace.spans:  # parents come before their children
            if span.parent_span_id in inside:
                inside.add(span.span_id)
        on_path = sum(s.end_unix_nano - s.start_unix_nano for s in trace.critical_path if s.span_id in inside)
        return min(on_path / (offender.end_unix_nano - offender.start_unix_nano), 1.0)
    return None


def _search(case: Case, finding: Bottleneck) -> Advice:
    facts = finding.facts
    fewer = ""
    if facts["batch"] > 1:
        fewer = f" Or search fewer than {facts['batch']:.0f} vectors in a call that is waited for."
    return _to_target(
        case,
        finding,
        metric="vector.search_duration",
        dimensions=facts["of"],
        target_s=facts["target_s"],
        count=facts["count"],
        change=_cheaper(facts["index"], facts["index_type"]) + fewer,
    )


def _cheaper(index: str, kind: str) -> str:
    """What makes a search in an index of this type cheaper; none of it fits all of them."""
    if kind == "flat":
        return f"Search {index} by an approximate index (HNSW or IVF) instead of comparing all vectors."
    if kind in ("hnsw", "diskann", "vamana", "nsg"):
        return f"Make searches in {index} cheaper: lower ef, so that its graph offers fewer candidates, or a smaller k."
    if kind.startswith("ivf"):
        return f"Make searches in {index} cheaper: probe fewer of its lists (nprobe)."
    return f"Make searches in {index} cheaper: an approximate index if all vectors are compared, else fewer candidates."


def _phase(case: Case, finding: Bottleneck) -> Advice:
    facts = finding.facts
    return _to_target(
        case,
        finding,
        metric="startup.phase_duration",
        dimensions={"phase": facts["phase"]},
        target_s=max(facts["phase_s"] - (facts["startup_s"] - facts["target_s"]), 0.0),
        count=len(case.scope.runs),
        change=f"Shorten the start-up phase {facts['phase']}, or move it behind interactive.",
    )


def _part(case: Case, finding: Bottleneck) -> Advice:
    """What stands in a start outside every phase."""
    facts = finding.facts
    if facts["ended_by"] == "exit":
        because = "a program that only starts and ends has no target that says how much of it is too much"
        return not_made(finding, f"doing less of {facts['part']}", because)
    return _to_target(
        case,
        finding,
        metric="startup.part_duration",
        dimensions={"part": facts["part"]},
        target_s=max(facts["part_s"] - (facts["startup_s"] - facts["target_s"]), 0.0),
        count=len(case.scope.runs),
        change=f"Do less of {facts['part']} in the start, or move it behind interactive.",
    )


def _to_target(
    case: Case,
    finding: Bottleneck,
    *,
    metric: str,
    dimensions: dict[str, str],
    target_s: float,
    count: float,
    change: str,
) -> Advice:
    values = observe(case.scope, metric, dimensions)
    share = share_on_path(case, finding)
    if not values or share is None:
        return not_made(finding, "making it faster", "its worst trace could not be read whole")
    now = statistics.median(values.values())
    if now <= target_s:
        return not_made(finding, "making it faster", "the typical one meets its target; only the slow ones miss it")
    then = now - (now - target_s) * share
    excess = f"the excess over {duration(target_s)}" if target_s > 0 else "all of it"
    return recommended(
        case,
        finding,
        "faster",
        change=change,
        where=finding.operation,
        metric=metric,
        dimensions=dimensions,
        now=now,
        then=then,
        then_low=0.0,
        then_high=now - (now - target_s) * share * 0.5,
        method=f"{excess}, of which {share:.0%} lies on the critical path of its worst trace",
        saved_s=(now - then) * count,
        verify=f"{metric} of {finding.operation} {f'meets {duration(target_s)}' if target_s > 0 else 'is gone'}",
    )
