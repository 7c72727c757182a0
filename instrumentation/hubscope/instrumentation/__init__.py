"""Measure an application by hand: `from hubscope import instrumentation as hub`.

    hub.configure(service_name="hub", service_version="2")   # or `hubscope run`, without code

    with hub.phase("personas"):
        load_personas()
    hub.interactive()

    @hub.task("ask")
    async def ask(question): ...

Every block is a context manager and a decorator, for plain, async and generator functions. All of it is a cheap
no-op while nothing is configured, and none of it raises into the application. Importing this module imports no
OpenTelemetry: the parts are fetched when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hubscope.instrumentation.cache_watch import CacheWatch, watch_cache
    from hubscope.instrumentation.from_code import configure
    from hubscope.instrumentation.manual import (
        first_render,
        interactive,
        memory_operation,
        phase,
        plugin_call,
        query,
        rating,
        task,
        vector_search,
        vector_upsert,
    )
    from hubscope.instrumentation.setup import flush

__all__ = [
    "CacheWatch",
    "configure",
    "first_render",
    "flush",
    "interactive",
    "memory_operation",
    "phase",
    "plugin_call",
    "query",
    "rating",
    "task",
    "vector_search",
    "vector_upsert",
    "watch_cache",
]

# Where each name lives; the others are in `manual`.
_PARTS = {"configure": "from_code", "flush": "setup", "CacheWatch": "cache_watch", "watch_cache": "cache_watch"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"hubscope.instrumentation.{_PARTS.get(name, 'manual')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
