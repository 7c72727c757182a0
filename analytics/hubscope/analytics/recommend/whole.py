"""The whole that a metric's time is part of, at its longest: no change can save more than that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from hubscope.analytics.metrics import vector_dimensions
from hubscope.analytics.scope import Scope

Dimensions = Mapping[str, str]


def longest_s(scope: Scope, metric: str, dimensions: Dimensions) -> float | None:
    """The longest whole seen in any run, in seconds; None where none was, or the metric is no time."""
    seen = _WHOLES[metric](scope, dimensions) if metric in _WHOLES else iter(())
    return max(seen, default=None)


def _starts(scope: Scope, _: Dimensions) -> Iterator[float]:
    return (float(row["duration_s"]) for row in scope.rows("startup"))


def _queries(scope: Scope, of: Dimensions) -> Iterator[float]:
    rows = scope.rows("query_shapes")
    return (float(r["max_s"]) for r in rows if (r["operation"], r["shape"]) == (of["operation"], of["query"]))


def _operations(scope: Scope, of: Dimensions) -> Iterator[float]:
    return (float(row["max_s"]) for row in scope.rows("root_operations") if row["operation"] == of["operation"])


def _searches(scope: Scope, of: Dimensions) -> Iterator[float]:
    return (float(row["max_s"]) for row in scope.rows("vector_searches") if vector_dimensions(row) == dict(of))


def _calls(scope: Scope, of: Dimensions) -> Iterator[float]:
    rows = scope.rows("plugin_calls")
    return (float(r["max_s"]) for r in rows if (r["plugin"], r["hook"]) == (of["plugin"], of["hook"]))


def _loads(scope: Scope, of: Dimensions) -> Iterator[float]:
    """A look-up loads once at most."""
    return (float(row["max_s"]) for row in scope.rows("cache_loads") if row["cache"] == of["cache"])


# Every metric that something is predicted in; a test holds the predictions to it.
_WHOLES: Final[Mapping[str, Callable[[Scope, Dimensions], Iterator[float]]]] = {
    "startup.package_import_time": _starts,
    "startup.phase_duration": _starts,
    "startup.part_duration": _starts,
    "query.duration": _queries,
    "query.loop_time_per_operation": _operations,
    "vector.search_duration": _searches,
    "plugin.time_per_call": _calls,
    "cache.load_time_per_lookup": _loads,
}
