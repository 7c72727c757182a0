"""The Model Context Protocol's Python SDK: requests of a server and a client's tool calls.

mcp 1 has no spans: one is made for each request that a server handles (a tool's answer with `isError` has failed) and
each `ClientSession.call_tool`. mcp 2 makes spans of its own: they are kept, and only the metrics are derived from them.
Arguments and results are not read.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Collection
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import get_value
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped there
from wrapt import register_post_import_hook

from hubscope import semconv as names
from hubscope.instrumentation import signals
from hubscope.instrumentation.libraries.patches import Patches
from hubscope.instrumentation.measure import Measure

_TOOL_CALL: Final = "tools/call"
_patches = Patches()
_log = logging.getLogger("hubscope")


class _Request(Measure):
    """A request; of a tool call that a server runs, the tool's duration too."""

    __slots__ = ("tool_failed",)

    def __init__(self, method: str, target: str, *, client: bool) -> None:
        attributes: dict[str, Any] = {names.MCP_METHOD_NAME: method}
        if method == _TOOL_CALL:
            attributes[names.GEN_AI_OPERATION_NAME] = "execute_tool"
            attributes[names.GEN_AI_TOOL_NAME] = target
        super().__init__(f"{method} {target}".rstrip(), attributes, client=client)
        self.tool_failed = False

    def _kind(self, trace: Any) -> Any:
        return trace.SpanKind.CLIENT if self.client else trace.SpanKind.SERVER

    def _ended(self, span: Any, handles: signals.Handles, duration_s: float, failed: bool) -> None:
        if self.tool_failed:
            from opentelemetry.trace import Status, StatusCode

            span.set_attribute(names.ERROR_TYPE, "tool_error")
            span.set_status(Status(StatusCode.ERROR))
            self.attributes[names.ERROR_TYPE] = "tool_error"
        _record(handles, self.attributes, duration_s, client=self.client)


def _record(handles: signals.Handles, attributes: Any, duration_s: float, *, client: bool) -> None:
    kept = (names.MCP_METHOD_NAME, names.GEN_AI_TOOL_NAME, names.ERROR_TYPE)
    chosen = {name: attributes[name] for name in kept if name in attributes}
    metric = names.METRIC_MCP_CLIENT_DURATION if client else names.METRIC_MCP_SERVER_DURATION
    handles.instrument(metric).record(duration_s, chosen)
    if not client and names.GEN_AI_TOOL_NAME in chosen:
        chosen.pop(names.MCP_METHOD_NAME, None)
        handles.instrument(names.METRIC_TOOL_DURATION).record(duration_s, chosen)


def _unmeasured() -> bool:
    return not _patches.on or signals.handles() is None or bool(get_value("suppress_instrumentation"))


def _handle_request(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def _handle_request(self: Any, message: Any, req: Any, *args: Any, **kwargs: Any) -> Any:
        if _unmeasured():
            return await original(self, message, req, *args, **kwargs)
        target = getattr(getattr(req, "params", None), "name", None)
        request = _Request(str(getattr(req, "method", "")), target if isinstance(target, str) else "", client=False)
        respond = message.respond

        async def watched(response: Any) -> Any:
            # An answer is the only place that tells a failure: what a handler raises has become one before.
            answer = getattr(response, "root", response)
            request.tool_failed = bool(getattr(answer, "isError", False)) or type(answer).__name__ == "ErrorData"
            return await respond(response)

        message.respond = watched
        with request:
            return await original(self, message, req, *args, **kwargs)

    return _handle_request


def _call_tool(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def call_tool(self: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        if _unmeasured():
            return await original(self, name, *args, **kwargs)
        with _Request(_TOOL_CALL, name, client=True) as request:
            result = await original(self, name, *args, **kwargs)
            request.tool_failed = bool(getattr(result, "isError", False))
            return result

    return call_tool


class _Derive:
    """A span processor: the metrics of the spans that mcp 2 makes."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        return

    def _on_ending(self, span: Any) -> None:
        return

    def on_end(self, span: Any) -> None:
        try:
            attributes = span.attributes or {}
            handles = signals.handles()
            if not _patches.on or handles is None or names.MCP_METHOD_NAME not in attributes:
                return
            client = span.kind is trace.SpanKind.CLIENT
            _record(handles, attributes, (span.end_time - span.start_time) / 1e9, client=client)
        except Exception:  # noqa: BLE001 - never into the application
            _log.debug("the metrics of an MCP span could not be derived", exc_info=True)

    def shutdown(self) -> None:
        return

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True


class McpInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # no type information
    """Measures MCP servers and clients."""

    def __init__(self) -> None:
        self._derives: bool = getattr(self, "_derives", False)

    def instrumentation_dependencies(self) -> Collection[str]:
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        _patches.on = True
        register_post_import_hook(self._patch_server, "mcp.server.lowlevel.server")
        register_post_import_hook(self._patch_client, "mcp.client.session")
        register_post_import_hook(self._derive, "mcp.shared._otel")  # there from mcp 2 on

    def _patch_server(self, module: Any) -> None:
        self._put(getattr(module, "Server", None), "_handle_request", _handle_request)

    def _patch_client(self, module: Any) -> None:
        self._put(getattr(module, "ClientSession", None), "call_tool", _call_tool)

    def _put(self, owner: Any, name: str, measured: Any) -> None:
        if not _patches.on or owner is None or "mcp.shared._otel" in sys.modules:
            return
        _patches.put(owner, name, measured)

    def _derive(self, module: Any) -> None:
        provider: Any = trace.get_tracer_provider()
        if _patches.on and not self._derives and hasattr(provider, "add_span_processor"):
            provider.add_span_processor(_Derive())
            self._derives = True  # a processor cannot be taken out; it does nothing while this is switched off

    def _uninstrument(self, **kwargs: Any) -> None:
        _patches.take_out()
