"""Plugin calls by the histogram hub.plugin.call.duration, which counts every call; spans begin at 50 µs."""

from __future__ import annotations

from collections import defaultdict

from hubscope.analytics import cumulative
from hubscope.analytics.scope import Row, Scope
from hubscope.semconv import HUB_PLUGIN_HOOK, HUB_PLUGIN_ID, METRIC_PLUGIN_DURATION


def points(scope: Scope) -> dict[tuple[str, str], list[Row]]:
    """(plugin, hook) -> what its histograms of both kinds got within the window, over all runs of the scope."""
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for query in ("kpi_histograms", "kpi_explicit_histograms"):
        rows = scope.rows(query, metric=METRIC_PLUGIN_DURATION)
        for row in cumulative.added(rows, scope.data.since_ns):
            attributes = row["attributes"]
            found[attributes.get(HUB_PLUGIN_ID, ""), attributes.get(HUB_PLUGIN_HOOK, "")].append(row)
    return dict(found)


def longest_s(rows: list[Row]) -> float | None:
    """The longest call of these points: the maximum, or the upper edge of the last bucket where no maximum was sent.

    None where neither is known (explicit bounds without a maximum: the last bucket is open).
    """
    highs = [_high_s(row) for row in rows]
    known = [high for high in highs if high is not None]
    return max(known) if known and len(known) == len(highs) else None


def _high_s(row: Row) -> float | None:
    if row["high"] is not None:
        return float(row["high"])
    if "scale" not in row:
        return None
    return float(2.0 ** ((row["offset_index"] + len(row["bucket_counts"])) * 2.0 ** -row["scale"]))
