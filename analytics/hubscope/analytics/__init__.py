"""What is slow, what to do about it, what that would save, and afterwards whether it did.

connect(lake)                        a DuckDB connection, one view a table of the lake
report(lake, …)                      the report, as frozen objects with to_dict()
compare(lake, before, after, by=…)   two versions or two groups of runs
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# Imported here and not on first use: `connect` is a module too, and its import would hide a lazy function.
from hubscope.analytics.connect import connect

if TYPE_CHECKING:
    from hubscope.analytics.reporting import compare, report

__all__ = ["compare", "connect", "report"]


def __getattr__(name: str) -> Any:
    """report and compare bring numpy and scipy, which `hubscope sql` and `trace` do without."""
    if name in ("report", "compare"):
        from hubscope.analytics import reporting

        return getattr(reporting, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
