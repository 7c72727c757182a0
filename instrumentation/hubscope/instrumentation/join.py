"""When the application sets a provider of its own after ours (Datasette 1.0 does), join it instead of losing it.

The API keeps the first provider and ignores a second with a warning, so the application's own exporters would get
nothing. Instead theirs becomes the global one, our processors are added to it, and what our already made tracers record
is passed on to its processors: every span reaches both, once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider

_log = logging.getLogger("hubscope")


class PassOn(SpanProcessor):
    """Gives everything to another provider's processors, and leaves their shutdown to that provider."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        self._target.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        self._target.on_end(span)

    def shutdown(self) -> None:
        return

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return bool(self._target.force_flush(timeout_millis))


def add_processors(provider: TracerProvider, processors: tuple[SpanProcessor, ...]) -> None:
    """Add processors to a provider that the application made."""
    for processor in processors:
        provider.add_span_processor(processor)


def watch_for_second(ours: TracerProvider, joined: Callable[[TracerProvider], None]) -> bool:
    """From now on a second `set_tracer_provider` joins instead of being ignored; False where that cannot be done.

    `joined` is called with the application's provider.
    """
    original = getattr(trace, "_set_tracer_provider", None)
    if original is None:
        _log.warning(
            "hubscope: a tracer provider that the application sets later cannot be joined with this OpenTelemetry API"
        )
        return False

    def set_provider(provider: Any, log: bool) -> None:
        if provider is ours or not isinstance(provider, TracerProvider):
            original(provider, log)
            return
        try:
            _join(ours, provider)
            trace._set_tracer_provider = original  # a third one is the application's own mistake
            joined(provider)
        except Exception:  # noqa: BLE001 - never into the application
            _log.warning(
                "hubscope: the application's own tracer provider could not be joined; its exporters get nothing"
            )
            _log.debug("joining failed", exc_info=True)
            original(provider, log)

    trace._set_tracer_provider = set_provider  # type: ignore[assignment]  # keyword names are not used
    return True


def _join(ours: TracerProvider, theirs: TracerProvider) -> None:
    multi, target = ours._active_span_processor, theirs._active_span_processor
    for processor in multi._span_processors:
        theirs.add_span_processor(processor)
    multi._span_processors = (PassOn(target),)
    merge_resources(ours, theirs)
    trace._TRACER_PROVIDER = theirs
    _log.info("the application's own tracer provider was joined: its exporters and ours both get every span")


def merge_resources(ours: TracerProvider, theirs: TracerProvider) -> None:
    """One service on both: what the application says holds, what it does not say is ours."""
    from opentelemetry.sdk.resources import Resource

    said = {k: v for k, v in theirs.resource.attributes.items() if not str(v).startswith("unknown_service")}
    missing = {k: v for k, v in ours.resource.attributes.items() if k not in said or k == "service.instance.id"}
    for provider, attributes in ((theirs, missing), (ours, {k: v for k, v in said.items() if k not in missing})):
        update = getattr(provider, "_update_resource", None)
        if update is not None:
            update(Resource(attributes))
