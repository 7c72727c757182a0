"""Slow vector searches: p95 over the plan's 50 ms. The sentence says so where a flat index outgrew its size."""

from __future__ import annotations

from typing import Final

from hubscope.analytics.findings import (
    Outcome,
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
from hubscope.analytics.model import Bottleneck, Checked
from hubscope.analytics.scope import Scope

NAME: Final = "slow_vector_search"
# A flat index compares every vector: 10,000 of 1536 float32 are 60 MB read a search, past most caches.
FLAT_LIMIT: Final = 10_000


def detect(scope: Scope) -> Outcome:
    target_s = kpi_limit(scope, "memory.vector_search_time", 0.05)
    findings, fine = [], []
    for (index,), group in grouped(scope.rows("vector_searches"), "index_name").items():
        p95_s, median_s = typical(group, "p95_s"), typical(group, "median_s")
        if p95_s < target_s:
            what = f"vector searches in {index}"
            fine.append(Checked(what, f"p95 {duration(p95_s)}, target {duration(target_s)}"))
            continue
        example = worst(group, "p95_s")
        vectors = float(example["size"] or 0)
        flat = example["index_type"] == "flat" and vectors >= FLAT_LIMIT
        advice = "; a flat index compares all of them, an approximate one (HNSW) a few hundred" if flat else ""
        of = f" among {vectors:,.0f} vectors" if vectors else ""
        findings.append(
            Bottleneck(
                fingerprint=fingerprint(NAME, scope.service, index),
                detector=NAME,
                severity=severity_by_ratio(p95_s / target_s),
                service=scope.service,
                operation=f"search {index}",
                sentence=(
                    f"A vector search in {index}{of} takes {duration(median_s)}, p95 {duration(p95_s)}, "
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
                    "vectors": vectors,
                    "dimensions": example["dimensions"],
                    "median_s": median_s,
                    "p95_s": p95_s,
                    "target_s": target_s,
                    "count": total(group, "n"),
                },
            )
        )
    return Outcome(tuple(findings), tuple(fine))
