"""Histograms of durations from spans, bounded in number, each bucket with the last span that fell into it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hubscope import semconv
from hubscope.collector.scrape.exposition import Exemplar, Family, Sample
from hubscope.processors.columns import SpanColumns

# Of each kind. At 18 lines a series the three stay below 6,000 lines, 1 MB; what comes later is counted under OTHER.
MAX_SERIES: Final = 100
OTHER: Final = "(other)"

# In seconds: from an in-process query to a hung call; the plan's 100 ms is a bound.
_CALLS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# The plan's 0.5 s to the first render, 1 s warm and 3 s cold are bounds.
_STARTS: Final = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0)
_THRESHOLD: Final = r"(?:^|,)[ \t]*ot=(?:[^,]*;)?th:(?P<th>[0-9a-f]{1,14})(?:[;,]|[ \t]*$)"
_UNSAMPLED: Final = 1 << 56  # a sampling threshold of W3C trace state is a 56-bit number


class Kind(NamedTuple):
    """One histogram: which spans (a boolean mask), and what tells its series apart beside service and version."""

    name: str
    brief: str
    label: str
    bounds: tuple[float, ...]
    mask: Callable[[SpanColumns], pa.Array]
    value: Callable[[SpanColumns], pa.Array]


KINDS: Final[tuple[Kind, ...]] = (
    Kind(
        "hubscope_plugin_call_duration_seconds",
        "Duration of plugin calls that were spans.",
        "plugin",
        _CALLS,
        lambda spans: pc.not_equal(spans.attribute(semconv.HUB_PLUGIN_ID), ""),
        lambda spans: spans.attribute(semconv.HUB_PLUGIN_ID),
    ),
    Kind(
        "hubscope_query_duration_seconds",
        "Duration of queries and vector searches that were spans, by their shape.",
        "query",
        _CALLS,
        lambda spans: pc.not_equal(spans.attribute(semconv.DB_SYSTEM_NAME), ""),
        lambda spans: pc.if_else(
            pc.equal(spans.attribute(semconv.DB_QUERY_SUMMARY), ""),
            spans.text("SpanName"),
            spans.attribute(semconv.DB_QUERY_SUMMARY),
        ),
    ),
    Kind(
        "hubscope_startup_duration_seconds",
        "From process creation to interactive.",
        "type",
        _STARTS,
        lambda spans: pc.equal(spans.text("SpanName"), semconv.SPAN_STARTUP),
        lambda spans: spans.attribute(semconv.HUB_STARTUP_TYPE),
    ),
)

Key = tuple[str, str, str]  # service, version, and what the kind tells apart


class Histogram:
    """Counts a bucket (the last is above every bound), their sum, and the last span of each."""

    def __init__(self, bounds: int) -> None:
        self.counts = [0.0] * (bounds + 1)
        self.exemplars: list[Exemplar | None] = [None] * (bounds + 1)
        self.sum_s = 0.0


class Durations:
    """All series of one kind. A sampled span counts for those it stands for (`ot=th:…` in its trace state)."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.series: dict[Key, Histogram] = {}
        self._bounds = np.array(kind.bounds)

    def note(self, spans: SpanColumns) -> bool:
        """Count the batch's spans of this kind; whether there were any."""
        mask = self.kind.mask(spans)
        if not pc.any(mask).as_py():
            return False
        whose, subjects = spans.subjects
        meant = pa.table(
            {
                "row": pa.array(np.arange(len(mask))),
                "subject": pa.array(whose),
                "value": self.kind.value(spans),
                "seconds": pc.max_element_wise(spans.duration_s, 0.0),
                "state": spans.text("TraceState"),
            }
        ).filter(mask)
        weights = _weights(meant["state"])
        found = meant.drop_columns(["state"])
        found = found.append_column("bucket", pa.array(np.searchsorted(self._bounds, meant["seconds"], side="left")))
        found = found.append_column("weight", weights)
        found = found.append_column("weighted", pc.multiply(meant["seconds"], weights))
        groups = found.group_by(["subject", "value", "bucket"], use_threads=False).aggregate(
            [("weight", "sum"), ("weighted", "sum"), ("row", "max")]
        )
        last = spans.spans.select(["TraceId", "SpanId", "TimestampUnixNano", "Duration"]).take(groups["row_max"])
        for group, span in zip(groups.to_pylist(), last.to_pylist(), strict=True):
            histogram = self._histogram((*subjects[group["subject"]], group["value"]))
            histogram.counts[group["bucket"]] += group["weight_sum"]
            histogram.sum_s += group["weighted_sum"]
            if span["TraceId"]:
                seconds, end_ns = max(span["Duration"], 0) / 1e9, span["TimestampUnixNano"] + span["Duration"]
                shown = Exemplar(span["TraceId"], span["SpanId"], seconds, end_ns / 1e9)
                histogram.exemplars[group["bucket"]] = shown
        return True

    def family(self) -> Family:
        samples: list[Sample] = []
        for (service, version, value), histogram in self.series.items():
            labels = (("service", service), ("version", version), (self.kind.label, value))
            total = 0.0
            bounds = (*(repr(bound) for bound in self.kind.bounds), "+Inf")
            for bound, count, exemplar in zip(bounds, histogram.counts, histogram.exemplars, strict=True):
                total += count
                samples.append(Sample("_bucket", (*labels, ("le", bound)), round(total), exemplar))
            samples.append(Sample("_count", labels, round(total)))
            samples.append(Sample("_sum", labels, histogram.sum_s))
        return Family(self.kind.name, "histogram", "seconds", self.kind.brief, samples)

    def _histogram(self, key: Key) -> Histogram:
        if key not in self.series and len(self.series) >= MAX_SERIES:
            key = (OTHER, "", OTHER)
        if key not in self.series:
            self.series[key] = Histogram(len(self.kind.bounds))
        return self.series[key]


def _weights(states: pa.ChunkedArray) -> pa.Array:
    """How many spans each stands for: 1, or the adjusted count of its sampling threshold."""
    if not pc.any(pc.not_equal(states, "")).as_py():
        return pa.array(np.ones(len(states)))
    thresholds = pc.struct_field(pc.extract_regex(states, _THRESHOLD), "th")
    if thresholds.null_count == len(thresholds):
        return pa.array(np.ones(len(states)))
    texts = thresholds.to_pylist()
    return pa.array([1.0 if t is None else _UNSAMPLED / (_UNSAMPLED - int(t.ljust(14, "0"), 16)) for t in texts])
