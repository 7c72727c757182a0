"""The blocks an application measures by hand. Each is a `Measure`: a context manager that is also a decorator."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from hubscope import semconv as names
from hubscope.instrumentation import signals
from hubscope.instrumentation.measure import Measure
from hubscope.instrumentation.startup import tracker

if TYPE_CHECKING:
    from opentelemetry.trace import Span

# The hand-measured vector search or write that is running here; the library underneath only completes its attributes.
_vector: ContextVar[VectorBlock | None] = ContextVar("hubscope_vector", default=None)

_VECTOR_SYSTEMS_IN_PROCESS: Final = frozenset({"", "usearch", "hnswlib", "faiss", "sqlite", "sqlite-vec", "numpy"})


def running_vector_block() -> VectorBlock | None:
    """The hand-measured vector block around the caller."""
    return _vector.get()


class Query(Measure):
    """A query; `rows(n)` says how many rows were fetched."""

    __slots__ = ("_rows",)

    def __init__(self, text: str, system: str, namespace: str | None, collection: str | None) -> None:
        from hubscope.instrumentation.libraries import sql_text

        shape = sql_text.shape_of(text)
        table = collection or shape.collection
        attributes: dict[str, Any] = {
            names.DB_SYSTEM_NAME: system,
            names.DB_OPERATION_NAME: shape.operation,
            names.DB_QUERY_TEXT: shape.text,
            names.DB_QUERY_SUMMARY: shape.summary,
        }
        if table:
            attributes[names.DB_COLLECTION_NAME] = table
        if namespace:
            attributes[names.DB_NAMESPACE] = namespace
        super().__init__(
            f"{shape.operation} {table}" if table else shape.operation,
            attributes,
            names.METRIC_DB_DURATION,
            (names.DB_SYSTEM_NAME, names.DB_COLLECTION_NAME, names.DB_OPERATION_NAME, names.DB_QUERY_SUMMARY),
            client=system not in ("sqlite", "duckdb"),
        )
        self._rows: int | None = None

    def rows(self, count: int) -> None:
        """Say how many rows the query gave."""
        self._rows = count

    def _ended(self, span: Span, handles: signals.Handles, duration_s: float, failed: bool) -> None:
        if self._rows is None:
            return
        span.set_attribute(names.DB_RESPONSE_RETURNED_ROWS, self._rows)
        chosen = {
            k: self.attributes[k] for k in (names.DB_SYSTEM_NAME, names.DB_COLLECTION_NAME) if k in self.attributes
        }
        handles.instrument(names.METRIC_DB_ROWS).record(self._rows, chosen)


class VectorBlock(Measure):
    """A vector search or write. While it runs, the library's own instrumentation makes no second span."""

    __slots__ = ("_vector_token",)

    def __init__(
        self, name: str, attributes: dict[str, Any], metric: str, metric_attributes: tuple[str, ...], client: bool
    ) -> None:
        super().__init__(name, attributes, metric, metric_attributes, client=client)
        self._vector_token: Any = None

    def complete(self, attributes: dict[str, Any]) -> None:
        """Add what was not said by hand."""
        for name, value in attributes.items():
            if name not in self.attributes:
                self.set(name, value)

    def _began(self) -> None:
        self._vector_token = _vector.set(self)

    def _ended(self, span: Span, handles: signals.Handles, duration_s: float, failed: bool) -> None:
        token, self._vector_token = self._vector_token, None
        if token is not None:
            _vector.reset(token)
        size = self.attributes.get(names.HUB_VECTOR_SIZE)
        if isinstance(size, int):
            index = self.attributes.get(names.DB_COLLECTION_NAME, "")
            handles.instrument(names.METRIC_VECTOR_INDEX_SIZE).set(size, {names.DB_COLLECTION_NAME: index})


class PluginCall(Measure):
    """A plugin's call: wall time, and the calling thread's CPU time where no other task can run in between."""

    __slots__ = ("_cpu_ns", "_thread")

    def __init__(self, attributes: dict[str, Any], name: str) -> None:
        metric_attributes = (names.HUB_PLUGIN_ID, names.HUB_PLUGIN_HOOK)
        super().__init__(name, attributes, names.METRIC_PLUGIN_DURATION, metric_attributes)
        self._cpu_ns: int | None = None
        self._thread = 0

    def _began(self) -> None:
        import threading

        self._thread = threading.get_ident()
        # Inside an event loop other tasks may run on this thread during the call: the time would not be the plugin's.
        self._cpu_ns = None if _in_event_loop() else time.thread_time_ns()

    def _ended(self, span: Span, handles: signals.Handles, duration_s: float, failed: bool) -> None:
        import threading

        if self._cpu_ns is not None and self._thread == threading.get_ident():
            span.set_attribute(names.HUB_PLUGIN_CPU_TIME, (time.thread_time_ns() - self._cpu_ns) / 1e9)


class Task(Measure):
    """A user's task: its duration, and whether it was the first one after interactive."""

    __slots__ = ()

    def __init__(self, name: str, persona: str | None) -> None:
        attributes: dict[str, Any] = {names.HUB_TASK_NAME: name}
        if persona is not None:
            attributes[names.HUB_PERSONA_ID] = persona
        super().__init__(
            names.SPAN_TASK.format(name=name), attributes, names.METRIC_TASK_DURATION, (names.HUB_TASK_NAME,)
        )

    def begin(self, *, attach: bool = True) -> None:
        started = _started()
        if started is not None:
            started.seen("first_request")
            self.attributes[names.HUB_TASK_FIRST_ACTION] = started.take_first_task()
        super().begin(attach=attach)


def _in_event_loop() -> bool:
    import sys

    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


def phase(name: str) -> Measure:
    """A phase of the start: span `hub.startup.phase {name}`."""
    return Measure(names.SPAN_PHASE.format(name=name), {names.HUB_STARTUP_PHASE: name})


def query(text: str, system: str = "sqlite", namespace: str | None = None, collection: str | None = None) -> Query:
    """A query. The text is recorded with its literals replaced; parameters never."""
    return Query(text, system, namespace, collection)


def vector_search(
    index: str,
    top_k: int | None = None,
    dimensions: int | None = None,
    metric: str | None = None,
    index_type: str | None = None,
    size: int | None = None,
    filtered: bool = False,
    system: str | None = None,
    batch_size: int | None = None,
) -> VectorBlock:
    """A vector search: span `search {index}`. `size` is the number of vectors in the index, `batch_size` of those that
    are searched for at once where there are several."""
    attributes = _known(
        (names.DB_SYSTEM_NAME, system),
        (names.DB_COLLECTION_NAME, index),
        (names.DB_OPERATION_NAME, "search"),
        (names.HUB_VECTOR_TOP_K, top_k),
        (names.HUB_VECTOR_DIMENSIONS, dimensions),
        (names.HUB_VECTOR_METRIC, metric),
        (names.HUB_VECTOR_INDEX_TYPE, index_type),
        (names.HUB_VECTOR_SIZE, size),
        (names.HUB_VECTOR_FILTERED, filtered),
        (names.DB_OPERATION_BATCH_SIZE, batch_size),
    )
    return VectorBlock(
        names.SPAN_VECTOR_SEARCH.format(index=index),
        attributes,
        names.METRIC_VECTOR_SEARCH_DURATION,
        (names.DB_SYSTEM_NAME, names.DB_COLLECTION_NAME, names.HUB_VECTOR_INDEX_TYPE),
        (system or "") not in _VECTOR_SYSTEMS_IN_PROCESS,
    )


def vector_upsert(index: str, batch_size: int = 1, system: str | None = None) -> VectorBlock:
    """A write of `batch_size` vectors: span `upsert {index}`."""
    attributes = _known(
        (names.DB_SYSTEM_NAME, system),
        (names.DB_COLLECTION_NAME, index),
        (names.DB_OPERATION_NAME, "upsert"),
        (names.DB_OPERATION_BATCH_SIZE, batch_size),
    )
    return VectorBlock(
        names.SPAN_VECTOR_UPSERT.format(index=index),
        attributes,
        names.METRIC_VECTOR_INDEX_DURATION,
        (names.DB_SYSTEM_NAME, names.DB_COLLECTION_NAME),
        (system or "") not in _VECTOR_SYSTEMS_IN_PROCESS,
    )


def memory_operation(operation: str, store: str, persona: str | None = None) -> Measure:
    """A memory-store operation; `operation` is create, search, update or delete."""
    attributes = _known(
        (names.GEN_AI_OPERATION_NAME, f"{operation}_memory"),
        (names.GEN_AI_MEMORY_STORE_ID, store),
        (names.HUB_PERSONA_ID, persona),
    )
    return Measure(names.SPAN_MEMORY.format(operation=operation, store=store), attributes)


def plugin_call(
    plugin_id: str,
    hook: str,
    tier: str = "standard",
    version: str | None = None,
    permissions: Iterable[str] = (),
) -> PluginCall:
    """One call of a plugin; `tier` (premium or standard) says which quota holds."""
    attributes = _known(
        (names.HUB_PLUGIN_ID, plugin_id),
        (names.HUB_PLUGIN_HOOK, hook),
        (names.HUB_PLUGIN_TIER, tier),
        (names.HUB_PLUGIN_VERSION, version),
        (names.HUB_PLUGIN_ISOLATION, "in_process"),
        (names.HUB_PLUGIN_PERMISSIONS, tuple(permissions) or None),
    )
    return PluginCall(attributes, names.SPAN_PLUGIN.format(id=plugin_id, hook=hook))


def task(name: str, persona: str | None = None) -> Task:
    """A user's task: span `task {name}`; its outcome is the span's status."""
    return Task(name, persona)


def first_render() -> None:
    """The application showed something for the first time."""
    started = _started()
    if started is not None:
        started.first_render()


def interactive() -> None:
    """The application answers its user from now on: this ends its start."""
    started = _started()
    if started is not None:
        started.interactive()


def rating(value: float, task: str | None = None) -> None:
    """A user's explicit rating between 0 and 1. A value outside is logged and dropped: it would bend the score."""
    handles = signals.handles()
    if handles is None:
        return
    import logging

    log = logging.getLogger("hubscope")
    try:
        number = float(value)
        if not 0.0 <= number <= 1.0:
            log.warning("hub.rating: expected a number between 0 and 1, got %r; it is not recorded", value)
            return
        attributes = _known((names.HUB_RATING, number), (names.HUB_TASK_NAME, task))
        handles.instrument(names.METRIC_SATISFACTION).record(number)
        handles.event(names.EVENT_RATING, attributes)
    except (TypeError, ValueError):
        log.warning("hub.rating: expected a number between 0 and 1, got %r; it is not recorded", value)
    except Exception:
        log.debug("a rating could not be recorded", exc_info=True)


def _started() -> tracker.Startup | None:
    return tracker.current() if signals.handles() is not None else None


def _known(*pairs: tuple[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in pairs if value is not None}
