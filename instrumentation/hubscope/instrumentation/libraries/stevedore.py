"""stevedore: each extension's part of a `map`, as a call of the plugin by the manager's namespace.

What an application calls on a driver itself (`DriverManager.driver`) goes past the library and is not seen.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

from opentelemetry.context import get_value
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped there
from wrapt import register_post_import_hook

from hubscope.instrumentation import signals
from hubscope.instrumentation.libraries.plugin_calls import Call, Plugin

_enabled = False


def _version(extension: Any) -> str:
    return str(getattr(getattr(extension.entry_point, "dist", None), "version", "") or "")


def _timed(function: Callable[..., Any], hook: str) -> Callable[..., Any]:
    """`function(extension, …)`, timed. stevedore itself catches what it raises, so the error is seen here only."""

    @functools.wraps(function)
    def timed(extension: Any, *args: Any, **kwargs: Any) -> Any:
        handles = signals.handles()
        if handles is None:
            return function(extension, *args, **kwargs)
        call = Call(handles, Plugin(str(extension.name), hook, lambda: _version(extension)))
        error: BaseException | None = None
        call.resume()
        try:
            return function(extension, *args, **kwargs)
        except BaseException as raised:
            error = raised
            raise
        finally:
            call.pause()
            call.finish(error)

    return timed


class StevedoreInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # no type information
    """Measures what stevedore's managers call."""

    def __init__(self) -> None:
        self._original: Any = getattr(self, "_original", None)
        self._manager: Any = getattr(self, "_manager", None)

    def instrumentation_dependencies(self) -> Collection[str]:
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        global _enabled
        _enabled = True
        register_post_import_hook(self._patch, "stevedore.extension")

    def _patch(self, module: Any) -> None:
        original = getattr(module.ExtensionManager, "_invoke_one_plugin", None)
        if not _enabled or self._original is not None or original is None:
            return

        @functools.wraps(original)
        def _invoke_one_plugin(
            manager: Any, response_callback: Any, func: Any, e: Any, *args: Any, **kwargs: Any
        ) -> Any:
            if _enabled and signals.handles() is not None and not get_value("suppress_instrumentation"):
                func = _timed(func, str(getattr(manager, "namespace", "map")))
            return original(manager, response_callback, func, e, *args, **kwargs)

        self._manager, self._original = module.ExtensionManager, original
        self._manager._invoke_one_plugin = _invoke_one_plugin

    def _uninstrument(self, **kwargs: Any) -> None:
        global _enabled
        _enabled = False
        if self._original is not None:
            self._manager._invoke_one_plugin = self._original
            self._original = self._manager = None
