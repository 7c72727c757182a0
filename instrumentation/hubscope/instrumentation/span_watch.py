"""What a process does first: a request ends its start, and the first span of a forked child says whose worker it is."""

from __future__ import annotations

import os
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor
from opentelemetry.trace import SpanKind

from hubscope import semconv
from hubscope.instrumentation.startup.tracker import Startup


class FirstRequest(SpanProcessor):
    """Tells the start of the first SERVER span; in a forked child, tells with its first span whose worker it is.

    `tracer` makes that span, `parent` is the service.instance.id of the process that was set up. A child that measures
    nothing tells nothing.
    """

    def __init__(self, started: Startup, tracer: Any, parent: str) -> None:
        self._started: Startup | None = started
        self._tracer = tracer
        self._parent = parent
        self._is_new_child = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self._started, self._is_new_child = None, True

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        if self._is_new_child:
            self._is_new_child = False
            attributes = {semconv.HUB_STARTUP_PARENT: self._parent}
            name, now_ns = semconv.SPAN_WORKER_STARTUP, span.start_time
            self._tracer.start_span(name, context=Context(), start_time=now_ns, attributes=attributes).end(now_ns)
        if self._started is not None and span.kind is SpanKind.SERVER:
            started, self._started = self._started, None
            started.seen("first_request")
