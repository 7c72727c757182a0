"""The tracer, meter and logger that all our instrumentation shares, and the start-up span as parent of last resort.

Cheap when nothing is configured: as long as no OpenTelemetry SDK is set up, `handles()` is two look-ups and None.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from opentelemetry._logs import Logger
    from opentelemetry.context import Context
    from opentelemetry.metrics import Meter
    from opentelemetry.trace import Span, Tracer

SCOPE: Final = "hubscope"

_handles: Handles | None = None
# While the application starts, spans without a parent belong to its start. It is not attached to the current
# context on purpose: every task and thread started from there would inherit it and hang under the start for ever.
_startup_span: Span | None = None


class Handles:
    """What is needed to make a span, record a metric, or emit an event."""

    __slots__ = ("_instruments", "logger", "meter", "tracer")

    def __init__(self, tracer: Tracer, meter: Meter, logger: Logger) -> None:
        self.tracer = tracer
        self.meter = meter
        self.logger = logger
        self._instruments: dict[str, Any] = {}

    def instrument(self, name: str) -> Any:
        """The instrument of that name, made as semconv describes it. KeyError for a name that is not there."""
        found = self._instruments.get(name)
        if found is None:
            found = self._instruments.setdefault(name, self._make(name))
        return found

    def _make(self, name: str) -> Any:
        from hubscope import semconv

        metric = next((m for m in semconv.METRICS if m.name == name), None)
        if metric is None:
            raise KeyError(name)
        makers: dict[str, Any] = {
            "histogram": self.meter.create_histogram,
            "counter": self.meter.create_counter,
            "updowncounter": self.meter.create_up_down_counter,
            "gauge": self.meter.create_gauge,
        }
        return makers[metric.instrument](metric.name, unit=metric.unit, description=metric.brief)

    def event(self, name: str, attributes: dict[str, Any], context: Context | None = None) -> None:
        """Emit a log record with that event name."""
        from time import time_ns

        from opentelemetry._logs import SeverityNumber

        self.logger.emit(
            timestamp=time_ns(),
            context=context,
            severity_number=SeverityNumber.INFO,
            attributes=attributes,
            event_name=name,
        )


def handles() -> Handles | None:
    """The shared handles, or None as long as no SDK is configured."""
    return _handles if _handles is not None else _look()


def _look() -> Handles | None:
    global _handles
    modules: dict[str, Any] = sys.modules
    trace = modules.get("opentelemetry.trace")
    if trace is None:  # nobody imported the API, so nobody set up an SDK
        return None
    provider = trace.get_tracer_provider()
    nothing: tuple[Any, ...] = (trace.ProxyTracerProvider, trace.NoOpTracerProvider)
    if type(provider) in nothing:
        return None
    from opentelemetry import metrics
    from opentelemetry._logs import get_logger

    from hubscope.semconv import SCHEMA_URL

    _handles = Handles(
        trace.get_tracer(SCOPE, schema_url=SCHEMA_URL),
        metrics.get_meter(SCOPE, schema_url=SCHEMA_URL),
        get_logger(SCOPE, schema_url=SCHEMA_URL),
    )
    return _handles


def forget() -> None:
    """Drop the handles, so that the next use finds the providers of then."""
    global _handles
    _handles = None


def set_startup_span(span: Span | None) -> None:
    """Make `span` the parent of spans that have none, or nothing again."""
    global _startup_span
    _startup_span = span


def parent_context(current: Context | None = None) -> Context | None:
    """What to pass as `context=` when starting a span below what is in `current`; None is that context itself.

    Without `current` it is the current context.
    """
    inherited = getattr(threading.current_thread(), "_otel_context", None)
    if inherited is None and _startup_span is None:
        return None
    from opentelemetry import context, trace

    if current is None:
        current = context.get_current()
    span = trace.get_current_span(current)
    if span is trace.INVALID_SPAN:
        return None if _startup_span is None else trace.set_span_in_context(_startup_span, current)
    if inherited is not None and getattr(span, "end_time", None) and trace.get_current_span(inherited) is span:
        # A thread that the first request started, and that lives on: what it does now belongs to no request we know.
        return context.Context()
    return None


def error_type(error: BaseException) -> str:
    """The exception's class as `error.type` wants it: with its module unless it is a builtin."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def is_failure(error: BaseException | None) -> bool:
    """Whether `error` is a failure of the measured block, and not a way to leave it."""
    if error is None or isinstance(error, GeneratorExit):
        return False
    return not (isinstance(error, SystemExit) and error.code in (None, 0))


def fail(span: Span, error: BaseException) -> None:
    """Mark the span failed. The message is not recorded: it may quote the application's data."""
    from opentelemetry.trace import Status, StatusCode

    from hubscope.semconv import ERROR_TYPE

    kind = error_type(error)
    span.set_attribute(ERROR_TYPE, kind)
    span.set_status(Status(StatusCode.ERROR, kind))
