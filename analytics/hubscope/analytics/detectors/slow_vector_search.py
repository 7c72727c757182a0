"""Slow vector searches: p95 over the plan's 50 ms, by index: system, name, type and order of magnitude of its size.

A call is judged, for a user waits for calls. Where it searches several vectors at once the sentence says how many and
what one of them takes; is that within the target, it is the number that makes the call slow.
"""

from __future__ import annotations

from typing import Final

from hubscope.analytics.findings import (
    Outcome,
    counted,
    duration,
    fingerprint,
    grouped,
    impact,
    kpi_limit,
    one_span,
    severity_by_ratio,
    total,
    typical,
    worst,
)
from hubscope.analytics.metrics import vector_dimensions
from hubscope.analytics.model import Bottleneck, Checked
from hubscope.analytics.scope import Row, Scope

NAME: Final = "slow_vector_search"
# A flat index compares every vector: 10,000 of 1536 float32 are 60 MB read a search, past most caches.
FLAT_LIMIT: Final = 10_000


def detect(scope: Scope) -> Outcome:
    target_s = kpi_limit(scope, "memory.vector_search_time", 0.05)
    findings, fine = [], []
    rows = scope.rows("vector_searches")
    for group in grouped(rows, "system", "index_name", "index_type", "size_from").values():
        p95_s = typical(group, "p95_s")
        if p95_s < target_s:
            what = f"vector searches in {_index(group[0])}"
            fine.append(Checked(what, f"p95 {duration(p95_s)}, target {duration(target_s)}"))
            continue
        findings.append(_finding(scope, group, p95_s, target_s))
    return Outcome(tuple(findings), tuple(fine))


def _index(row: Row) -> str:
    """`notes (flat, 50,000 vectors)`: what tells it from others of its name."""
    held = counted_vectors(float(row["size"])) if row["size"] else ""
    known = ", ".join(part for part in (row["index_type"], held) if part)
    return f"{row['index_name']} ({known})" if known else str(row["index_name"])


def counted_vectors(number: float) -> str:
    return f"{number:,.0f} vector{'s' * (number != 1)}"


def _finding(scope: Scope, group: list[Row], p95_s: float, target_s: float) -> Bottleneck:
    example = worst(group, "p95_s")
    index, vectors, median_s = example["index_name"], float(example["size"] or 0), typical(group, "median_s")
    batch, vector_p95_s = typical(group, "batch"), typical(group, "vector_p95_s")
    flat = example["index_type"] == "flat" and vectors >= FLAT_LIMIT
    advice = "; a flat search compares all of them, an approximate one (HNSW, IVF) a few hundred" if flat else ""
    kind = f", {example['index_type']}," if example["index_type"] else ""
    of = f"{kind} among {counted_vectors(vectors)}" if vectors else kind.rstrip(",")
    many = ""
    if batch > 1:
        each_s = typical(group, "vector_median_s")
        alone = ", which meets the target" if vector_p95_s < target_s else ""
        many = f" for {counted(round(batch), 'vector')} at once: {duration(each_s)} a vector{alone};"
    return Bottleneck(
        fingerprint=fingerprint(
            NAME, scope.service, example["system"], index, example["index_type"], f"{example['size_from']:.0f}"
        ),
        detector=NAME,
        severity="low" if vector_p95_s < target_s else severity_by_ratio(vector_p95_s / target_s),
        service=scope.service,
        operation=f"search {index}",
        sentence=(
            f"A vector search in {index}{of} takes {duration(median_s)}{many or ','} p95 {duration(p95_s)}, "
            f"target {duration(target_s)}{advice}."
        ),
        impact=impact(
            scope,
            total(group, "sum_s") - total(group, "n") * target_s,
            min(max(1 - target_s / p95_s, 0.0), 1.0),
            "memory.vector_search_time",
        ),
        evidence=one_span(example["worst_trace"], example["worst_span"]),
        version=scope.name or None,
        facts={
            "index": index,
            "index_type": example["index_type"],
            "of": vector_dimensions(example),
            "vectors": vectors,
            "dimensions": example["dimensions"],
            "batch": batch,
            "median_s": median_s,
            "p95_s": p95_s,
            "vector_p95_s": vector_p95_s,
            "target_s": target_s,
            "count": total(group, "n"),
        },
    )
