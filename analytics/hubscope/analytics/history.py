"""Histories longer than the spans: operations and KPIs over weeks and months, from what was rolled up per minute."""

from __future__ import annotations

from typing import Any, Final

from hubscope.analytics.engine import Engine

DAY_S: Final = 86_400
FOREVER_NS: Final = 2**63 - 1


def operations(
    engine: Engine, service: str, step_s: int = DAY_S, since_ns: int = 0, until_ns: int = FOREVER_NS
) -> list[dict[str, Any]]:
    """A row a step (UTC) and span name and kind: `start_ns`, `n`, `errors`, `mean_s`, `p50_s`, `p95_s`, `p99_s`, …

    Percentiles are off by 1.1 % at most (sql/rollup_operations.sql).
    """
    return engine.rows("rollup_operations", service=service, step_s=step_s, since_ns=since_ns, until_ns=until_ns)


def kpis(
    engine: Engine, service: str, step_s: int = DAY_S, since_ns: int = 0, until_ns: int = FOREVER_NS
) -> list[dict[str, Any]]:
    """A row a step, KPI and version: `mean`, `low` and `high` in the KPI's unit, `n` values, `missed` of them."""
    return engine.rows("rollup_kpis", service=service, step_s=step_s, since_ns=since_ns, until_ns=until_ns)
