"""A span that comes into being only if somebody needs it.

A call of a few microseconds must not cost a span (about 60 µs made and exported), but until it has ended nobody knows
that it was short, and a query it made needs a parent. So the current span during the call is this one: it becomes
real, with the start time of the call, when a child asks for its context or anything is set on it; otherwise its maker
decides at the end. What is lost: nothing of a long or failed call, and of a short one only the span itself, never its
metric.

A task or thread that the call started may ask after its end: then it is too late for a span, which nobody would end,
and the call's own parent answers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext, Status, StatusCode, get_current_span

# One for all: it is held for the making of a span, and for two assignments at the end of a call. The making asks the
# parent for its context, which may be lazy as well.
_lock = threading.RLock()


class LazySpan(Span):
    """`make` starts the real span; it is called once at most. `parent` stands in for a call that ended without one."""

    __slots__ = ("_make", "_parent", "real")

    def __init__(self, make: Callable[[], Span], parent: Context) -> None:
        self._make: Callable[[], Span] | None = make
        self._parent = parent
        self.real: Span | None = None

    def materialise(self) -> Span:
        """The real span, or the parent's where the call has ended without one."""
        if self.real is None:
            with _lock:
                if self.real is None:
                    self.real = get_current_span(self._parent) if self._make is None else self._make()
        return self.real

    def close(self) -> bool:
        """The call has ended; whether there is a real span, which its maker is to end."""
        with _lock:
            self._make = None
            return self.real is not None

    @property
    def end_time(self) -> int | None:
        """When the real span ended, as the SDK's spans have it."""
        return getattr(self.materialise(), "end_time", None) if self._make is None else None

    def get_span_context(self) -> SpanContext:
        return self.materialise().get_span_context()

    def is_recording(self) -> bool:
        return self._make is not None or self.materialise().is_recording()

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
        if self.real is not None and self._make is not None:
            self.real.end(end_time)
