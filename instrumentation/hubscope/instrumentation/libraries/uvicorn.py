"""uvicorn: a SERVER span a request, root of its trace, by contrib's ASGI middleware around the application it serves.

Around the middleware stands what it does not do: the span is named after the route, or else after the path's template;
the query string is kept from it, and so is the text of exceptions, because both may quote private data. An application
that an OpenTelemetry middleware measures already is left alone. Only HTTP: a websocket is no request that ends soon.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from contextlib import nullcontext
from typing import Any, Final

from opentelemetry.context import attach, detach
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped there
from opentelemetry.trace import INVALID_SPAN, get_current_span, set_span_in_context
from wrapt import register_post_import_hook

from hubscope import semconv as names
from hubscope.instrumentation import signals
from hubscope.instrumentation.libraries.path_template import UNKNOWN, Templates
from hubscope.instrumentation.startup import tracker

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

_REQUEST: Final = "hubscope.request"
_enabled = False
_log = logging.getLogger("hubscope")


class _Request:
    """One request: the scope as the application gets it, and what it raised."""

    __slots__ = ("error", "named", "scope")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.error: BaseException | None = None
        self.named = False


class ServedApplication:
    """The application, measured from its first request on: by then its own middleware is in place and can be seen."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self._middleware: Any = None
        self._decided = False
        self._templates = Templates()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        middleware = self._middleware_of() if scope.get("type") == "http" and _enabled else None
        if middleware is None:
            await self.app(scope, receive, send)
            return
        request = _Request(scope)
        # uvicorn's task inherits what was current where the server was started; a request is not a part of that.
        token = attach(set_span_in_context(INVALID_SPAN))
        try:
            await middleware({**scope, "query_string": b"", _REQUEST: request}, receive, send)
        finally:
            detach(token)
        error, request.error = request.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error

    def _middleware_of(self) -> Any:
        if not self._decided and signals.handles() is not None:
            self._decided = True
            try:
                self._middleware = self._make_middleware()
            except Exception as problem:  # noqa: BLE001 - requests go on unmeasured
                _log.warning("hubscope: requests are not measured: %s", problem)
        return self._middleware

    def _make_middleware(self) -> Any:
        if measured_already(self.app):
            return None
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.util.http import get_excluded_urls

        return OpenTelemetryMiddleware(
            self._inner,
            excluded_urls=get_excluded_urls("ASGI"),
            default_span_details=lambda scope: (_method(scope), {}),
            exclude_spans=["send", "receive"],
        )

    async def _inner(self, view: Scope, receive: Receive, send: Send) -> None:
        """What contrib's middleware calls: the application with its own scope, and its own exceptions kept."""
        request: _Request = view[_REQUEST]
        span = get_current_span()

        async def send_named(message: Any) -> None:
            if message["type"] == "http.response.start":  # by now the framework has found its route
                self._name(span, request, int(message["status"]))
            await send(message)

        try:
            await self.app(request.scope, receive, send_named)
        except BaseException as error:  # noqa: BLE001 - raised again outside of the middleware, which would record its text
            request.error = error
            if span.is_recording():
                self._name(span, request, 500)
                if signals.is_failure(error):
                    signals.fail(span, error)

    def _name(self, span: Any, request: _Request, status: int) -> None:
        if request.named or not span.is_recording():
            return
        request.named = True
        try:
            scope = request.scope
            template: str | None = _route(scope)
            if template:
                span.set_attribute(names.HTTP_ROUTE, template)
            else:
                template = self._templates.known(str(scope.get("path", "")), found=status != 404)
                if template is not None:
                    span.set_attribute(names.URL_TEMPLATE, template)
            span.update_name(names.SPAN_REQUEST.format(method=_method(scope), template=template or UNKNOWN))
        except Exception:  # noqa: BLE001 - never into the application
            _log.debug("a request could not be named", exc_info=True)


def _method(scope: Scope) -> str:
    from opentelemetry.util.http import sanitize_method

    method = sanitize_method(str(scope.get("method", "")).strip())
    return "HTTP" if method in (None, "", "_OTHER") else str(method)


def _route(scope: Scope) -> str:
    """The route as Starlette and FastAPI leave it in the scope, with the prefix of where it is mounted."""
    route, prefix = scope.get("route"), str(scope.get("root_path", "")).rstrip("/")
    path = getattr(route, "path", None)
    if not isinstance(path, str):
        return ""
    # Starlette's Mount: its own path is part of the prefix by now.
    return f"{prefix}/{{path}}" if hasattr(route, "routes") else f"{prefix}{path}"


# Under these names ASGI middleware holds what it wraps.
_WRAPPED: Final = (
    "app",
    "_app",
    "asgi",
    "asgi_app",
    "application",
    "middleware_stack",
    "wrapped",
    "__wrapped__",
    "func",
)
_MAX_LOOKED_AT: Final = 200
_MIDDLEWARE: Final = "OpenTelemetryMiddleware"


def measured_already(app: Any) -> bool:
    """Whether the application makes SERVER spans of its own, or holds a middleware that does."""
    waiting, looked_at = [app], set[int]()
    while waiting and len(looked_at) < _MAX_LOOKED_AT:
        found = waiting.pop()
        if id(found) in looked_at:
            continue
        looked_at.add(id(found))
        if _makes_spans(found):
            return True
        held = [getattr(found, name, None) for name in (*_WRAPPED, "__self__")]
        held += [_content(cell) for cell in getattr(found, "__closure__", None) or ()]
        waiting += [inner for inner in held if callable(inner) and not isinstance(inner, type)]
    return False


def _makes_spans(found: Any) -> bool:
    # Contrib's and Starlette's middleware have the same name; contrib's mark is on FastAPI and Starlette applications.
    if type(found).__name__ == _MIDDLEWARE or getattr(found, "_is_instrumented_by_opentelemetry", False) is True:
        return True
    # FastAPI from 0.165 on measures itself wherever an SDK is set up, unless it was told not to.
    own = getattr(getattr(found, "_native_telemetry", None), "config", None)
    if isinstance(own, dict) and own.get("tracing"):
        return True
    declared = getattr(found, "user_middleware", None)  # Starlette's, before the stack is built
    return isinstance(declared, list) and any(
        getattr(getattr(kind, "cls", None), "__name__", "") == _MIDDLEWARE for kind in declared
    )


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


class UvicornInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # no type information
    """Measures the applications that uvicorn loads."""

    def __init__(self) -> None:
        self._config: Any = getattr(self, "_config", None)
        self._original: Any = getattr(self, "_original", None)

    def instrumentation_dependencies(self) -> Collection[str]:
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        global _enabled
        _enabled = True
        register_post_import_hook(self._patch, "uvicorn.config")

    def _patch(self, module: Any) -> None:
        config: Any = getattr(module, "Config", None)
        original = getattr(config, "load", None)
        if not _enabled or self._original is not None or original is None:
            return

        @functools.wraps(original)
        def load(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(self, *args, **kwargs)
            if _enabled and getattr(self, "loaded_app", None) is not None:
                _load_middleware()
                self.loaded_app = ServedApplication(self.loaded_app)
            return result

        self._config, self._original = config, original
        config.load = load

    def _uninstrument(self, **kwargs: Any) -> None:
        global _enabled
        _enabled = False  # applications that are served already go on unmeasured
        if self._original is not None:
            self._config.load = self._original
            self._config = self._original = None


def _load_middleware() -> None:
    """Import it while the application starts, and not during its first request."""
    started = tracker.current()
    with started.unrecorded() if started is not None else nullcontext():
        try:
            import opentelemetry.instrumentation.asgi  # noqa: F401
        except Exception as problem:  # noqa: BLE001 - requests go unmeasured, which the first one says
            _log.debug("the ASGI middleware cannot be imported: %s", problem)
