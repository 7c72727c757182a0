"""sqlite3: a span and two histograms a statement, through real subclasses put in by `connect`.

`sqlite3.connect` is given `factory=`, so a connection stays a `sqlite3.Connection` to C code: `backup`,
`Cursor(con)`, `isinstance` all hold. `Connection.execute*` go through a cursor of ours, as they do in C through one
of sqlite3's.

When a query ends: SQLite does the work of a SELECT while its rows are fetched. A span therefore lasts as long as
`execute` and the fetches took together, without what the application did in between, and is sent when the rows are
exhausted, or the cursor is used again, closed or let go. `commit` has a span of its own when a transaction was open:
there the disk is written.

A search by sqlite-vec is a vector search: `search {table}`, with the number of rows it gave as `hub.vector.top_k`,
since its k is a parameter.

Modules that took `connect` by name before are given ours. Out of reach are `sqlite3.Connection(…)`, a type that cannot
be changed, and a `connect` kept elsewhere (in a class, a closure) before measuring began.
"""

from __future__ import annotations

import functools
import logging
import os
import sqlite3
import sys
import warnings
from collections.abc import Collection, Iterable, Sized
from time import perf_counter_ns, time_ns
from types import TracebackType
from typing import Any, Final

from opentelemetry.context import get_value
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped there
from opentelemetry.trace import SpanKind

from hubscope import semconv as names
from hubscope.instrumentation import manual, signals
from hubscope.instrumentation.libraries import sql_text

_FACTORY_POSITION: Final = 5  # connect(database, timeout, detect_types, isolation_level, check_same_thread, factory, …)
# What may follow the database by position, which Python 3.13 and later warn of.
_PARAMETERS: Final = (
    "timeout", "detect_types", "isolation_level", "check_same_thread", "factory", "cached_statements", "uri"
)  # fmt: skip
_WARNS_OF_POSITIONS: Final = sys.version_info >= (3, 13)
_VECTOR_INDEX: Final = "flat"  # sqlite-vec 0.1 compares with every vector
_enabled = False
_log = logging.getLogger("hubscope")


class _Running:
    """The statement whose rows are still being fetched."""

    __slots__ = ("busy_ns", "rows", "shape", "span", "start_unix_nano")

    def __init__(self, span: Any, shape: sql_text.Shape, start_unix_nano: int) -> None:
        self.span = span
        self.shape = shape
        self.start_unix_nano = start_unix_nano
        self.busy_ns = 0
        self.rows: int | None = None

    def finish(self, error: BaseException | None = None) -> None:
        try:
            attributes: dict[str, Any] = {
                names.DB_SYSTEM_NAME: "sqlite",
                names.DB_OPERATION_NAME: self.shape.operation,
                names.DB_QUERY_SUMMARY: self.shape.summary,
            }
            if self.shape.collection:
                attributes[names.DB_COLLECTION_NAME] = self.shape.collection
            if self.rows is not None:
                self.span.set_attribute(names.DB_RESPONSE_RETURNED_ROWS, self.rows)
            if self.shape.vector:
                attributes[names.DB_OPERATION_NAME] = "search"
                self.span.set_attribute(names.HUB_VECTOR_TOP_K, self.rows or 0)
            if error is not None:
                signals.fail(self.span, error)
                code = getattr(error, "sqlite_errorname", None)
                if code:
                    self.span.set_attribute(names.DB_RESPONSE_STATUS_CODE, code)
                attributes[names.ERROR_TYPE] = signals.error_type(error)
            self.span.end(self.start_unix_nano + self.busy_ns)
            handles = signals.handles()
            if handles is None:
                return
            handles.instrument(names.METRIC_DB_DURATION).record(self.busy_ns / 1e9, attributes)
            if self.shape.vector:
                kept = {k: attributes[k] for k in (names.DB_SYSTEM_NAME, names.DB_COLLECTION_NAME) if k in attributes}
                kept[names.HUB_VECTOR_INDEX_TYPE] = _VECTOR_INDEX
                handles.instrument(names.METRIC_VECTOR_SEARCH_DURATION).record(self.busy_ns / 1e9, kept)
            if self.rows is not None:
                chosen = {k: attributes[k] for k in (names.DB_SYSTEM_NAME, names.DB_COLLECTION_NAME) if k in attributes}
                handles.instrument(names.METRIC_DB_ROWS).record(self.rows, chosen)
        except Exception:  # noqa: BLE001 - never into the application
            _log.debug("a query could not be recorded", exc_info=True)


def _start(connection: Any, sql: Any, batch: int | None = None) -> _Running | None:
    """Start measuring a statement; None while nothing is configured, or inside an exporter."""
    handles = signals.handles() if _enabled else None
    if handles is None or not isinstance(sql, str) or get_value("suppress_instrumentation"):
        return None
    try:
        shape = sql_text.shape_of(sql)
        attributes: dict[str, Any] = {
            names.DB_SYSTEM_NAME: "sqlite",
            names.DB_OPERATION_NAME: shape.operation,
            names.DB_QUERY_TEXT: shape.text,
            names.DB_QUERY_SUMMARY: shape.summary,
        }
        name = shape.operation
        if shape.collection:
            attributes[names.DB_COLLECTION_NAME] = shape.collection
            name = f"{name} {shape.collection}"
        if shape.vector:
            running = manual.running_vector_block()
            if running is not None:
                running.complete({names.DB_SYSTEM_NAME: "sqlite", names.HUB_VECTOR_INDEX_TYPE: _VECTOR_INDEX})
                return None
            attributes[names.DB_OPERATION_NAME] = "search"
            attributes[names.HUB_VECTOR_INDEX_TYPE] = _VECTOR_INDEX
            name = names.SPAN_VECTOR_SEARCH.format(index=shape.collection)
        namespace = getattr(connection, "_hubscope_namespace", "")
        if namespace:
            attributes[names.DB_NAMESPACE] = namespace
        if batch is not None:
            attributes[names.DB_OPERATION_BATCH_SIZE] = batch
        start_ns = time_ns()
        span = handles.tracer.start_span(
            name,
            context=signals.parent_context(),
            kind=SpanKind.INTERNAL,
            attributes=attributes,
            start_time=start_ns,
        )
        return _Running(span, shape, start_ns)
    except Exception:  # noqa: BLE001 - the statement runs unmeasured
        return None


class _StandsFor(type):
    """A class that equals the one it stands for: `type(con) == sqlite3.Connection`, as CPython's own tests ask."""

    def __eq__(cls, other: object) -> bool:
        return cls is other or vars(cls).get("_hubscope_stands_for") is other

    def __hash__(cls) -> int:
        return hash(vars(cls).get("_hubscope_stands_for") or id(cls))


class MeasuredCursor(sqlite3.Cursor, metaclass=_StandsFor):
    """sqlite3.Cursor that tells how long its statements took and how many rows were fetched."""

    _hubscope_stands_for = sqlite3.Cursor
    _hubscope_running: _Running | None = None

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        return self._hubscope_run(super().execute, (sql, parameters), None)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Any:
        return self._hubscope_run(super().executemany, (sql, parameters), _length(parameters))

    def executescript(self, sql_script: str, /) -> Any:
        return self._hubscope_run(super().executescript, (sql_script,), None)

    def _hubscope_run(self, run: Any, arguments: tuple[Any, ...], batch: int | None) -> Any:
        self._hubscope_finish()
        running = _start(self.connection, arguments[0], batch)
        if running is None:
            return run(*arguments)
        begin_ns = perf_counter_ns()
        try:
            result = run(*arguments)
        except BaseException as error:
            running.busy_ns = perf_counter_ns() - begin_ns
            running.finish(error)
            raise
        running.busy_ns = perf_counter_ns() - begin_ns
        if self.description is None:
            running.finish()  # no rows to come
        else:
            running.rows = 0
            self._hubscope_running = running
        return result

    def _hubscope_finish(self, error: BaseException | None = None) -> None:
        running = self._hubscope_running
        if running is not None:
            self._hubscope_running = None
            running.finish(error)

    def _hubscope_fetch(self, fetch: Any, arguments: tuple[Any, ...]) -> Any:
        running = self._hubscope_running
        if running is None:
            return fetch(*arguments)
        begin_ns = perf_counter_ns()
        try:
            result = fetch(*arguments)
        except BaseException as error:
            running.busy_ns += perf_counter_ns() - begin_ns
            self._hubscope_finish(error)
            raise
        running.busy_ns += perf_counter_ns() - begin_ns
        return result

    def fetchall(self) -> list[Any]:
        rows: list[Any] = self._hubscope_fetch(super().fetchall, ())
        running = self._hubscope_running
        if running is not None and running.rows is not None:
            running.rows += len(rows)
            self._hubscope_finish()
        return rows

    def fetchmany(self, size: int | None = None) -> list[Any]:
        wanted = self.arraysize if size is None else size
        rows: list[Any] = self._hubscope_fetch(super().fetchmany, (wanted,))
        running = self._hubscope_running
        if running is not None and running.rows is not None:
            running.rows += len(rows)
            if len(rows) < wanted:
                self._hubscope_finish()
        return rows

    def fetchone(self) -> Any:
        row = self._hubscope_fetch(super().fetchone, ())
        running = self._hubscope_running
        if running is not None and running.rows is not None:
            if row is None:
                self._hubscope_finish()
            else:
                running.rows += 1
        return row

    def __next__(self) -> Any:
        running = self._hubscope_running
        if running is None or running.rows is None:
            return super().__next__()
        begin_ns = perf_counter_ns()
        try:
            row = super().__next__()
        except StopIteration:
            running.busy_ns += perf_counter_ns() - begin_ns
            self._hubscope_finish()
            raise
        except BaseException as error:
            running.busy_ns += perf_counter_ns() - begin_ns
            self._hubscope_finish(error)
            raise
        running.busy_ns += perf_counter_ns() - begin_ns
        running.rows += 1
        return row

    def close(self) -> None:
        self._hubscope_finish()
        super().close()

    def __del__(self) -> None:
        self._hubscope_finish()


class MeasuredConnection(sqlite3.Connection, metaclass=_StandsFor):
    """sqlite3.Connection whose cursors measure, and whose commits are measured when they write."""

    _hubscope_stands_for = sqlite3.Connection
    _hubscope_namespace = ""

    def cursor(self, factory: Any = MeasuredCursor) -> Any:
        return super().cursor(_cursor_factory(factory))

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        return self._hubscope_own_cursor().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Any:
        return self._hubscope_own_cursor().executemany(sql, parameters)

    def executescript(self, sql_script: str, /) -> Any:
        return self._hubscope_own_cursor().executescript(sql_script)

    def _hubscope_own_cursor(self) -> Any:
        # As in C: these three make a plain cursor and do not ask a `cursor` method that the application overrode.
        return super().cursor(MeasuredCursor)

    def commit(self) -> None:
        self._hubscope_transaction("COMMIT", super().commit, ())

    def rollback(self) -> None:
        self._hubscope_transaction("ROLLBACK", super().rollback, ())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        name = "COMMIT" if kind is None else "ROLLBACK"
        return self._hubscope_transaction(name, super().__exit__, (kind, error, trace))

    def _hubscope_transaction(self, name: str, run: Any, arguments: tuple[Any, ...]) -> Any:
        running = _start(self, name) if self.in_transaction else None
        if running is None:
            return run(*arguments)
        begin_ns = perf_counter_ns()
        try:
            result = run(*arguments)
        except BaseException as error:
            running.busy_ns = perf_counter_ns() - begin_ns
            running.finish(error)
            raise
        running.busy_ns = perf_counter_ns() - begin_ns
        running.finish()
        return result


# What a type is called in messages, reprs and documentation must not tell that it is measured.
for _kind, _shown in ((MeasuredConnection, sqlite3.Connection), (MeasuredCursor, sqlite3.Cursor)):
    _kind.__name__, _kind.__qualname__, _kind.__module__ = _shown.__name__, _shown.__qualname__, _shown.__module__


def _length(parameters: object) -> int | None:
    return len(parameters) if isinstance(parameters, Sized) else None


@functools.lru_cache(maxsize=256)
def _mixed(measured: Any, own: Any) -> Any:
    """The application's own class, measured underneath: what it overrides still comes first."""
    named = {"__module__": own.__module__, "__qualname__": own.__qualname__}
    return type(own.__name__, (own, measured), {**named, "_hubscope_stands_for": own})


def _subclass(measured: type, factory: Any, base: type) -> Any:
    if factory is None or factory is base:
        return measured
    if not isinstance(factory, type) or not issubclass(factory, base) or issubclass(factory, measured):
        return factory  # a function: what it makes is its own affair
    try:
        return _mixed(measured, factory)  # type: ignore[arg-type]  # classes are hashable
    except TypeError:  # a final class, or one with another layout
        return factory


def _cursor_factory(factory: Any) -> Any:
    if factory is None:
        return None  # refused by sqlite3, as without measuring
    return _subclass(MeasuredCursor, factory, sqlite3.Cursor)


def _namespace(database: Any) -> str:
    """The database's file name without its folder, which may name a person."""
    try:
        name = os.fsdecode(database)
    except TypeError:
        return ""
    if name.startswith("file:"):
        name = name[5:].partition("?")[0]
    return os.path.basename(name) or name


def _named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments by name, and the interpreter's warning for the line that gave them by position.

    The interpreter would name our line, once for `connect` and once for the connection. Left as they are: arguments
    that it is to refuse, and those of a factory whose own signature may be another.
    """
    named = dict(zip(_PARAMETERS, args[1:], strict=False))
    factory: Any = named.get("factory", kwargs.get("factory"))
    plain: Any = sqlite3.Connection
    makes = (getattr(factory, "__init__", None), getattr(factory, "__new__", None))
    if len(args) - 1 > len(_PARAMETERS) or named.keys() & kwargs.keys():
        return args, kwargs
    if type(factory).__call__ is not type.__call__ or makes != (plain.__init__, plain.__new__):
        return args, kwargs
    listed = f"{', '.join(map(repr, _PARAMETERS[:-1]))} and {_PARAMETERS[-1]!r}"
    warnings.warn(
        "Passing more than 1 positional argument to sqlite3.connect() is deprecated. "
        f"Parameters {listed} will become keyword-only parameters in Python 3.15.",
        DeprecationWarning,
        stacklevel=3,
    )
    return args[:1], {**named, **kwargs}


def _put_where_it_was_imported(old: Any, new: Any) -> None:
    """In every loaded module, the function under whatever name: `from sqlite3 import connect` was done before."""
    for module in list(sys.modules.values()):
        space: Any = getattr(module, "__dict__", None)
        if not isinstance(space, dict):
            continue
        for name in [name for name, value in list(space.items()) if value is old]:
            space[name] = new


class Sqlite3Instrumentor(BaseInstrumentor):  # type: ignore[misc]  # no type information
    """Puts the measuring classes into `sqlite3.connect`, and takes them out again."""

    def __init__(self) -> None:
        self._original: Any = getattr(self, "_original", None)
        self._connect: Any = getattr(self, "_connect", None)

    def instrumentation_dependencies(self) -> Collection[str]:
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        global _enabled
        original = sqlite3.connect

        @functools.wraps(original)
        def connect(*args: Any, **kwargs: Any) -> Any:
            if len(args) > _FACTORY_POSITION:
                factory = _subclass(MeasuredConnection, args[_FACTORY_POSITION], sqlite3.Connection)
                args = (*args[:_FACTORY_POSITION], factory, *args[_FACTORY_POSITION + 1 :])
            else:
                kwargs["factory"] = _subclass(MeasuredConnection, kwargs.get("factory"), sqlite3.Connection)
            if len(args) > 1 and _WARNS_OF_POSITIONS:
                args, kwargs = _named(args, kwargs)
            connection = original(*args, **kwargs)
            if isinstance(connection, MeasuredConnection):
                connection._hubscope_namespace = _namespace(args[0] if args else kwargs.get("database"))
            return connection

        self._original, self._connect = original, connect
        _put_where_it_was_imported(original, connect)
        _enabled = True

    def _uninstrument(self, **kwargs: Any) -> None:
        global _enabled
        _enabled = False  # open connections keep their class and go on unmeasured
        _put_where_it_was_imported(self._connect, self._original)
