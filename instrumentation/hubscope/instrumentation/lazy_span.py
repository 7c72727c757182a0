"""A span that comes into being only if somebody needs it.

A call of a few microseconds must not cost a span (about 60 µs made and exported), but until it has ended nobody knows
that it was short, and a query it made needs a parent. So the current span during the call is this one: it becomes
real, with the start time of the call, when a child asks for its context or anything is set on it; otherwise its maker
decides at the end. What is lost: nothing of a long or failed call, and of a short one only the span itself, never its
metric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry.trace import Span, SpanContext, Status, StatusCode


class LazySpan(Span):
    """`make` starts the real span; it is called once at most."""

    __slots__ = ("_make", "real")

    def __init__(self, make: Callable[[], Span]) -> None:
        self._make = make
        self.real: Span | None = None

    def materialise(self) -> Span:
        """The real span."""
        if self.real is None:
            self.real = self._make()
        return self.real

    def get_span_context(self) -> SpanContext:
        return self.materialise().get_span_context()

    def is_recording(self) -> bool:
        return True

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        self.materialise().set_attributes(attributes)

    def set_attribute(self, key: str, value: Any) -> None:
        self.materialise().set_attribute(key, value)

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        self.materialise().add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: Any = None) -> None:
        self.materialise().add_link(context, attributes)

    def update_name(self, name: str) -> None:
        self.materialise().update_name(name)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        self.materialise().set_status(status, description)

    def record_exception(
        self, exception: BaseException, attributes: Any = None, timestamp: int | None = None, escaped: bool = False
    ) -> None:
        self.materialise().record_exception(exception, attributes, timestamp, escaped)

    def end(self, end_time: int | None = None) -> None:
        if self.real is not None:
            self.real.end(end_time)
