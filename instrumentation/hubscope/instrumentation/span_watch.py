"""The span processor that notices the first request of a process whose start nobody ended."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.trace import Span, SpanProcessor
from opentelemetry.trace import SpanKind

from hubscope.instrumentation.startup.tracker import Startup


class FirstRequest(SpanProcessor):
    """Tells the start of the first SERVER span."""

    def __init__(self, started: Startup) -> None:
        self._started: Startup | None = started

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        if self._started is not None and span.kind is SpanKind.SERVER:
            started, self._started = self._started, None
            started.seen("first_request")
