"""One measured block: a context manager that is also a decorator, for plain, async and generator functions.

It makes a span and records a histogram. Nothing it does can raise into the application: our own failure is
logged once at debug level and the block runs unmeasured.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import AsyncIterator, Callable
from time import perf_counter_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from hubscope.instrumentation import signals

if TYPE_CHECKING:
    from typing import Self

    from opentelemetry.trace import Span

_log = logging.getLogger("hubscope")
F = TypeVar("F", bound=Callable[..., Any])


class Measure:
    """`with Measure(…):`, `async with Measure(…):`, or `@Measure(…)`.

    `attributes` go on the span; those named in `metric_attributes` also go on the histogram `metric`.
    An instance may be used again, not inside itself; as a decorator every call gets its own.
    """

    __slots__ = (
        "_handles",
        "_span",
        "_start_ns",
        "_token",
        "attributes",
        "client",
        "metric",
        "metric_attributes",
        "name",
        "root",
    )

    def __init__(
        self,
        name: str,
        attributes: dict[str, Any],
        metric: str = "",
        metric_attributes: tuple[str, ...] = (),
        *,
        client: bool = False,
        root: bool = False,
    ) -> None:
        self.name = name
        self.attributes = attributes
        self.metric = metric
        self.metric_attributes = metric_attributes
        self.client = client
        self.root = root
        self._span: Span | None = None
        self._handles: signals.Handles | None = None
        self._token: Any = None
        self._start_ns = 0

    def _fresh(self) -> Self:
        copy = type(self).__new__(type(self))
        for kind in type(self).__mro__:
            for slot in getattr(kind, "__slots__", ()):
                setattr(copy, slot, getattr(self, slot))
        copy.attributes = dict(self.attributes)
        return copy

    def begin(self, *, attach: bool = True) -> None:
        """Start the span. With `attach`, spans made in the block become its children."""
        handles = signals.handles()
        if handles is None:
            return
        try:
            from opentelemetry import context, trace

            self._span = handles.tracer.start_span(
                self.name,
                context=None if self.root else signals.parent_context(),
                kind=self._kind(trace),
                attributes=self.attributes,
            )
            if attach:
                self._token = context.attach(self._in_context(trace.set_span_in_context(self._span)))
            self._handles = handles
            self._start_ns = perf_counter_ns()
            self._began()
        except Exception:  # noqa: BLE001 - the application goes on unmeasured
            _log.debug("measuring %s failed", self.name, exc_info=True)

    def finish(self, error: BaseException | None = None) -> None:
        """End the span and record the metric."""
        handles, span = self._handles, self._span
        if handles is None or span is None:
            return
        try:
            duration_s = (perf_counter_ns() - self._start_ns) / 1e9
            self._handles = self._span = None
            token, self._token = self._token, None
            if token is not None:
                from opentelemetry import context

                context.detach(token)
            failed = signals.is_failure(error)
            if failed and error is not None:
                signals.fail(span, error)
            self._ended(span, handles, duration_s, failed)
            span.end()
            if self.metric:
                chosen = {k: self.attributes[k] for k in self.metric_attributes if k in self.attributes}
                handles.instrument(self.metric).record(duration_s, chosen)
        except Exception:  # noqa: BLE001 - the application goes on
            _log.debug("measuring %s failed", self.name, exc_info=True)

    def set(self, name: str, value: Any) -> None:
        """Set an attribute of the running span."""
        self.attributes[name] = value
        if self._span is not None:
            self._span.set_attribute(name, value)

    # What a kind of block does beside: nothing here.
    def _kind(self, trace: Any) -> Any:
        return trace.SpanKind.CLIENT if self.client else trace.SpanKind.INTERNAL

    def _in_context(self, context: Any) -> Any:
        return context

    def _began(self) -> None:
        return

    def _ended(self, span: Span, handles: signals.Handles, duration_s: float, failed: bool) -> None:
        return

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(error)

    async def __aenter__(self) -> Self:
        self.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(error)

    def __call__(self, function: F) -> F:
        """The function, with each call measured."""
        return _decorated(self, function)


def _decorated(measure: Measure, function: F) -> F:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            with measure._fresh():
                return await function(*args, **kwargs)

    elif inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            with _detached(measure._fresh()):
                async for item in function(*args, **kwargs):
                    yield item

    elif inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with _detached(measure._fresh()):
                return (yield from function(*args, **kwargs))

    else:

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with measure._fresh():
                return function(*args, **kwargs)

    return wrapper  # type: ignore[return-value]  # the same signature, by functools.wraps


class _detached:
    """A generator's block: never the current span, which would leak to whoever consumes the generator."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure

    def __enter__(self) -> Measure:
        self.measure.begin(attach=False)
        return self.measure

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.measure.finish(error)
