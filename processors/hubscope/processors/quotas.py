"""Quota violations of a batch: every plugin call judged in Arrow, only the offenders looked at one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hubscope import semconv
from hubscope.lake_schema import LOGS, SUM
from hubscope.processors import rows
from hubscope.processors.batch import Batch
from hubscope.processors.columns import SpanColumns
from hubscope.processors.limits import USED, Flood, Plugin, Uses, Violation, limits
from hubscope.processors.rules import RESOURCES, Quota, Rules
from hubscope.processors.upstream import Upstream

_SEPARATOR = "\x1f"  # between the parts of a caller's key; in no id


class Quotas:
    """The quota processor: `hubscope.quota.violation` events and a `hub.quota.violations` count for each batch."""

    name = "quotas"

    def __init__(self, rules: Rules, upstream: Upstream | None = None) -> None:
        self.upstream = upstream if upstream is not None else Upstream()
        self.uses = Uses()
        self.flood = Flood()
        self._limits = limits(rules)

    def __call__(self, batch: Batch) -> Batch:
        columns = SpanColumns.of(batch)
        if columns is None:
            return batch
        mask = pc.not_equal(columns.attribute(semconv.HUB_PLUGIN_ID), "")
        if not pc.any(mask).as_py():
            return batch
        calls = SpanColumns(columns.spans.filter(mask).combine_chunks())  # offenders are looked up row by row
        found = [(violation, row) for resource in RESOURCES for violation, row in self._violations(calls, resource)]
        found.sort(key=lambda pair: pair[0].time_ns)
        events: list[rows.Row] = []
        counts: Counter[tuple[str, str, tuple[tuple[str, str], ...]]] = Counter()
        latest: dict[tuple[str, str, tuple[tuple[str, str], ...]], tuple[rows.Resource, int, int]] = {}
        for violation, row in found:
            service, instance, resource = self._whose(calls, row)
            series = (service, instance, violation.plugin.id, violation.quota.resource)
            if violation.time_ns <= self.upstream.until(semconv.METRIC_QUOTA_VIOLATIONS, *series):
                continue
            if self.flood.lets_through(series, violation.time_ns):
                events.append(_event(violation, service, resource, batch.received_unix_nano))
            key = (service, instance, tuple(violation.count_attributes().items()))
            counts[key] += 1
            first_ns = latest[key][1] if key in latest else violation.time_ns
            latest[key] = (resource, first_ns, violation.time_ns)
        points = [
            rows.count(semconv.METRIC_QUOTA_VIOLATIONS, key[0], latest[key][0], dict(key[2]), *latest[key][1:], added)
            for key, added in counts.items()
        ]
        if not found:
            return batch
        batch = replace(batch, violating=frozenset(violation.trace_id for violation, _ in found))
        return batch.with_derived(LOGS, rows.table(LOGS, events)).with_derived(SUM, rows.table(SUM, points))

    def _violations(self, calls: SpanColumns, resource: str) -> Iterator[tuple[Violation, int]]:
        """Each with the row of the span that showed it."""
        attribute = USED[resource]
        used = calls.number(attribute) if attribute else calls.duration_s
        plugins, which = self._plugins(calls)
        quotas = [self._limits(plugin).get(resource) for plugin in plugins]
        per_call = pa.array([None if q is None or q.window_s else q.limit for q in quotas], pa.float64()).take(which)
        over = pc.fill_null(pc.greater(used, per_call), False)
        for row in pc.indices_nonzero(over).to_pylist():
            index = which[row].as_py()
            quota = quotas[index]
            if quota is not None:
                yield self._violation(calls, row, plugins[index], quota, used[row].as_py()), row
        if any(quota is not None and quota.window_s for quota in quotas):
            windowed = pa.array([q is not None and q.window_s > 0 for q in quotas], pa.bool_()).take(which)
            yield from self._over_windows(calls, resource, pc.and_(windowed, pc.is_valid(used)), used, plugins, quotas)

    def _over_windows(
        self,
        calls: SpanColumns,
        resource: str,
        mask: pa.Array,
        used: pa.Array,
        plugins: list[Plugin],
        quotas: list[Quota | None],
    ) -> Iterator[tuple[Violation, int]]:
        """Shares and rates: a caller whose whole batch fits into its window is added at once, others call by call."""
        which = self._plugins(calls)[1]
        rows_of = pc.indices_nonzero(mask)
        if not len(rows_of):
            return
        whole = pa.table(
            {
                "row": pc.cast(rows_of, pa.int64()),
                "service": calls.service.take(rows_of),
                "instance": calls.instance.take(rows_of),
                "plugin": which.take(rows_of),
                "start": calls.start_ns.take(rows_of),
                "end": calls.end_ns.take(rows_of),
                "used": used.take(rows_of),
            }
        ).sort_by([("end", "ascending"), ("row", "ascending")])
        keys = ["service", "instance", "plugin"]
        totals = whole.group_by(keys, use_threads=False).aggregate([("used", "sum"), ("start", "min"), ("end", "max")])
        close: set[tuple[str, str, int]] = set()
        # One that came with two tiers or permissions shares a window with itself: only the order of its calls is fair.
        variants = Counter(plugin.id for plugin in plugins)
        for group in totals.to_pylist():
            plugin, quota = plugins[group["plugin"]], quotas[group["plugin"]]
            if quota is None:
                continue
            key = (group["service"], group["instance"], plugin.id, resource)
            window_ns = int(quota.window_s * 1e9)
            one_window = group["start_min"] // window_ns == group["end_max"] // window_ns
            if one_window and variants[plugin.id] == 1 and group["used_sum"] <= self.uses.room(key, quota):
                self.uses.add(key, quota, group["start_min"], group["end_max"], group["used_sum"])
            else:
                close.add((group["service"], group["instance"], group["plugin"]))
        if not close:
            return
        for call in whole.to_pylist():
            if (call["service"], call["instance"], call["plugin"]) not in close:
                continue
            plugin, quota = plugins[call["plugin"]], quotas[call["plugin"]]
            if quota is None:
                continue
            key = (call["service"], call["instance"], plugin.id, resource)
            crossed = self.uses.add(key, quota, call["start"], call["end"], call["used"])
            if crossed is not None:
                yield self._violation(calls, call["row"], plugin, quota, crossed), call["row"]

    @staticmethod
    def _plugins(calls: SpanColumns) -> tuple[list[Plugin], pa.Array]:
        """The different plugins of the batch, and which of them each row is."""
        parts = (semconv.HUB_PLUGIN_ID, semconv.HUB_PLUGIN_TIER, semconv.HUB_PLUGIN_PERMISSIONS)
        joined = pc.binary_join_element_wise(*(calls.attribute(part) for part in parts), _SEPARATOR)
        encoded = joined.dictionary_encode()
        return [Plugin.of(*text.split(_SEPARATOR)) for text in encoded.dictionary.to_pylist()], encoded.indices

    @staticmethod
    def _violation(calls: SpanColumns, row: int, plugin: Plugin, quota: Quota, observed: float) -> Violation:
        return Violation(
            plugin,
            calls.attribute(semconv.HUB_PLUGIN_HOOK)[row].as_py(),
            quota,
            observed,
            calls.end_ns[row].as_py(),
            calls.spans["TraceId"][row].as_py() or "",
            calls.spans["SpanId"][row].as_py() or "",
        )

    @staticmethod
    def _whose(calls: SpanColumns, row: int) -> tuple[str, str, rows.Resource]:
        resource = calls.spans["ResourceAttributes"][row].as_py() or []
        return calls.service[row].as_py(), calls.instance[row].as_py(), resource

    def snapshot(self) -> dict[str, Any]:
        return {"uses": self.uses.snapshot(), "flood": self.flood.snapshot()}

    def restore(self, state: dict[str, Any] | None) -> None:
        state = state or {}
        self.uses.restore(state.get("uses"))
        self.flood.restore(state.get("flood"))


def _event(violation: Violation, service: str, resource: rows.Resource, observed_ns: int) -> rows.Row:
    return rows.event(
        semconv.EVENT_QUOTA_VIOLATION,
        violation.sentence(),
        service,
        resource,
        violation.attributes(),
        violation.time_ns,
        observed_ns,
        violation.trace_id,
        violation.span_id,
    )
