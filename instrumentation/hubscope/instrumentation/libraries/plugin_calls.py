"""One call of a plugin: always a point in `hub.plugin.call.duration`, and a span where that tells more (see lazy_span).

A span is made where the call took 50 µs or more, failed, or made spans of its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from time import perf_counter_ns, time_ns
from typing import Any, Final

from opentelemetry.context import attach, detach, get_current
from opentelemetry.trace import Span, set_span_in_context

from hubscope import semconv as names
from hubscope.instrumentation import signals
from hubscope.instrumentation.lazy_span import LazySpan

# Below this a span costs more than what it tells; the design's own line between metrics and spans.
SPAN_FROM_NS: Final = 50_000
_log = logging.getLogger("hubscope")


class Plugin:
    """What is the same for every call of one hook of one plugin. `version` is asked when its first span is made."""

    __slots__ = ("_attributes", "_version", "metric", "name")

    def __init__(self, plugin_id: str, hook: str, version: Callable[[], str]) -> None:
        self.name = names.SPAN_PLUGIN.format(id=plugin_id, hook=hook)
        self.metric = {names.HUB_PLUGIN_ID: plugin_id, names.HUB_PLUGIN_HOOK: hook}
        self._version = version
        self._attributes: dict[str, Any] = {}

    def attributes(self) -> dict[str, Any]:
        """Those of the span. Made with the first one: pluggy learns a plugin's version after its registration."""
        if not self._attributes:
            made = {**self.metric, names.HUB_PLUGIN_TIER: "standard", names.HUB_PLUGIN_ISOLATION: "in_process"}
            version = self._version()
            if version:
                made[names.HUB_PLUGIN_VERSION] = version
            self._attributes = made
        return self._attributes


class Call:
    """One call of one plugin. `busy_ns` and `cpu_ns` grow with each stretch that the plugin runs."""

    __slots__ = (
        "_cpu_from",
        "_from",
        "_handles",
        "_parent",
        "_plugin",
        "_span",
        "_token",
        "busy_ns",
        "cpu_ns",
        "start_ns",
    )

    def __init__(self, handles: signals.Handles, plugin: Plugin) -> None:
        self._handles = handles
        self._plugin = plugin
        self._parent = get_current()
        self.busy_ns = 0
        self.cpu_ns: int | None = 0
        self.start_ns = time_ns()
        self._span = LazySpan(self._make, self._parent)

    def _make(self) -> Span:
        plugin = self._plugin
        return self._handles.tracer.start_span(
            plugin.name,
            context=signals.parent_context(self._parent) or self._parent,
            attributes=plugin.attributes(),
            start_time=self.start_ns,
        )

    def resume(self, *, cpu: bool = True) -> None:
        """The plugin runs from now on. Without `cpu` other tasks may run on the thread in between."""
        self._token = attach(set_span_in_context(self._span))
        self._cpu_from = time.thread_time_ns() if cpu else -1
        self._from = perf_counter_ns()

    def pause(self) -> None:
        """The plugin runs no more, for now."""
        self.busy_ns += perf_counter_ns() - self._from
        if self._cpu_from < 0:
            self.cpu_ns = None
        elif self.cpu_ns is not None:
            self.cpu_ns += time.thread_time_ns() - self._cpu_from
        detach(self._token)

    def finish(self, error: BaseException | None) -> None:
        """Record the metric, and the span if it is worth one."""
        try:
            failed = signals.is_failure(error)
            if failed or self.busy_ns >= SPAN_FROM_NS:
                self._span.materialise()
            if self._span.close():
                span = self._span.materialise()
                if self.cpu_ns is not None:
                    span.set_attribute(names.HUB_PLUGIN_CPU_TIME, self.cpu_ns / 1e9)
                if failed and error is not None:
                    signals.fail(span, error)
                span.end(self.start_ns + self.busy_ns)
            duration_s = self.busy_ns / 1e9
            self._handles.instrument(names.METRIC_PLUGIN_DURATION).record(duration_s, self._plugin.metric)
        except Exception:  # noqa: BLE001 - never into the application
            _log.debug("a call of %s could not be recorded", self._plugin.name, exc_info=True)
