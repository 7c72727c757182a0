"""Cumulative histograms within a window: what was added in it, without what they held before.

The points of sums are differenced in SQL (the shim `added`); buckets are lists whose scale may change from point to
point, and are differenced here by the same rule.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from hubscope.analytics.connect import FIRST_POINT_S
from hubscope.analytics.scope import Row

DELTA: Final = 1  # AggregationTemporality


def added(points: Sequence[Row], since_ns: int) -> list[Row]:
    """What each series of one histogram got from `since_ns` on, as points without those that got nothing.

    `points` are rows of kpi_histograms or kpi_explicit_histograms: by run, series and time, of a cumulative series
    also the last one before the window.
    """
    found: list[Row] = []
    for _, series in groupby(points, key=lambda row: (row["run"], row["series"])):
        starts: dict[int, list[Row]] = defaultdict(list)
        for row in series:
            if row["temporality"] == DELTA:
                found.append(row)
            else:
                starts[row["start_ns"]].append(row)
        for start_ns, rows in starts.items():
            found += _of_one_start(rows, start_ns, since_ns)
    return [row for row in found if row["n"] > 0]


def _of_one_start(rows: Sequence[Row], start_ns: int, since_ns: int) -> list[Row]:
    """Between two points of which the later holds less the series began anew: each stretch counts by its last point."""
    first = rows[0]
    before: Row | None = first
    began_within = start_ns >= since_ns
    began_just_now = start_ns > 0 and first["time_ns"] - start_ns <= FIRST_POINT_S * 1e9
    if first["time_ns"] >= since_ns and (began_within or began_just_now):
        before = None
    stretches: list[Row] = []
    last = first
    for row in rows[1:]:
        if row["n"] < last["n"]:
            stretches.append(difference(last, before))
            before = None
        last = row
    return [*stretches, difference(last, before)]


def difference(last: Row, before: Row | None) -> Row:
    """The later of two cumulative points without what the earlier holds; as it is where there is no earlier one.

    Nobody knows the extremes of what came between: they stand in the middle of the outermost buckets.
    """
    if before is None:
        return last
    counts = _buckets(last)
    if "scale" in last:
        # A series lowers its scale as its range grows: two points are compared at the lower one.
        scale = min(last["scale"], before["scale"])
        counts = _at_scale(counts, last["scale"] - scale)
        earlier = _at_scale(_buckets(before), before["scale"] - scale)
    elif last["bounds"] == before["bounds"]:
        scale, earlier = 0, _buckets(before)
    else:
        return last  # other bounds: another program's series under the same name
    left = {index: n - earlier.get(index, 0) for index, n in counts.items() if n > earlier.get(index, 0)}
    found: dict[str, Any] = {
        **last,
        "n": last["n"] - before["n"],
        "total": (last["total"] or 0.0) - (before["total"] or 0.0),
        "low": None,
        "high": None,
    }
    lowest, highest = min(left, default=0), max(left, default=-1)
    if "scale" in last:
        zeros = max((last["zero_count"] or 0) - (before["zero_count"] or 0), 0)
        found |= {"scale": scale, "zero_count": zeros, "offset_index": lowest}
        found["bucket_counts"] = [left.get(index, 0) for index in range(lowest, highest + 1)]
        middles = [*([0.0] if zeros else []), *(exponential_middle(i, scale) for i in sorted(left))]
    else:
        found["bucket_counts"] = [left.get(index, 0) for index in range(highest + 1)]
        middles = [explicit_middle(index, last["bounds"] or ()) for index in sorted(left)]
    if middles:
        found |= {"low": middles[0], "high": middles[-1]}
    return found


def _buckets(row: Row) -> dict[int, int]:
    offset = row.get("offset_index") or 0
    return {offset + place: n for place, n in enumerate(row["bucket_counts"] or ()) if n}


def _at_scale(buckets: Mapping[int, int], lower_by: int) -> dict[int, int]:
    merged: dict[int, int] = defaultdict(int)
    for index, n in buckets.items():
        merged[index >> lower_by] += n
    return merged


def exponential_middle(index: int, scale: int) -> float:
    """A value for an exponential bucket (base**index, base**(index + 1)], base = 2**(2**-scale): its middle."""
    return float(2.0 ** ((index + 0.5) * 2.0**-scale))


def explicit_middle(position: int, bounds: Sequence[float]) -> float:
    """A value for an explicit bucket: its middle; the open ends stand at half the first and at the last bound."""
    if not bounds:
        return 0.0
    if position == 0:
        return bounds[0] / 2 if bounds[0] > 0 else bounds[0]
    return bounds[-1] if position >= len(bounds) else (bounds[position - 1] + bounds[position]) / 2
