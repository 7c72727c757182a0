"""Entry points: what loading each one takes, as a call `load` of the plugin that it names.

`EntryPoint.load` is what pluggy, stevedore and hand-written hosts call. OpenTelemetry's own are left out: they are the
measuring.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Collection
from typing import Any, Final

from opentelemetry.context import get_value
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped there

from hubscope.instrumentation import signals
from hubscope.instrumentation.libraries.plugin_calls import Call, Plugin

_LEFT_OUT: Final = ("opentelemetry_", "hubscope")
_enabled = False


def _call(point: Any) -> Call | None:
    handles = signals.handles() if _enabled else None
    if handles is None or str(point.group).startswith(_LEFT_OUT) or get_value("suppress_instrumentation"):
        return None

    def version() -> str:
        return str(getattr(point.dist, "version", "") or "")

    return Call(handles, Plugin(str(point.name), "load", version))


class EntryPointsInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # no type information
    """Measures `importlib.metadata.EntryPoint.load`."""

    def __init__(self) -> None:
        self._original: Any = getattr(self, "_original", None)

    def instrumentation_dependencies(self) -> Collection[str]:
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        global _enabled
        kind: Any = importlib.metadata.EntryPoint
        original = kind.load

        @functools.wraps(original)
        def load(self: Any) -> Any:
            call = _call(self)
            if call is None:
                return original(self)
            error: BaseException | None = None
            call.resume()
            try:
                return original(self)
            except BaseException as raised:
                error = raised
                raise
            finally:
                call.pause()
                call.finish(error)

        self._original = original
        kind.load = load
        _enabled = True

    def _uninstrument(self, **kwargs: Any) -> None:
        global _enabled
        _enabled = False
        kind: Any = importlib.metadata.EntryPoint
        kind.load = self._original
