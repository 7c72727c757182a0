"""duckdb: a span and a histogram a query, by the methods of connections and relations.

`execute` of a connection does the work, its fetches only turn values into Python's; a relation (`sql`, `query`, the
functions on it) does nothing until it is fetched, and is measured there, with the rows it gave where that costs nothing
to know. Whatever the library calls inside is part of the outermost call. Classes are patched when the application
imports the library; `duckdb.execute` on the default connection is measured too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from contextvars import ContextVar
from typing import Any, Final

from opentelemetry.context import get_value
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped there
from wrapt import register_post_import_hook

from hubscope import semconv as names
from hubscope.instrumentation import manual, signals
from hubscope.instrumentation.libraries.patches import Patches

_patches = Patches()
_running: ContextVar[bool] = ContextVar("hubscope_duckdb", default=False)
_EXECUTE: Final = ("execute", "executemany")
_FETCH: Final = (
    "fetchall", "fetchone", "fetchmany", "fetchnumpy", "fetchdf", "df", "to_df", "arrow", "to_arrow_table",
    "fetch_arrow_table", "pl", "execute", "materialize", "to_parquet", "write_parquet", "to_csv", "write_csv",
)  # fmt: skip


def _measured(query: Any, batch: int | None, call: Callable[[], Any], *, rows: bool) -> Any:
    if batch is not None:
        query.attributes[names.DB_OPERATION_BATCH_SIZE] = batch
    token = _running.set(True)
    try:
        with query as running:
            result = call()
            if rows and isinstance(result, list):
                running.rows(len(result))
            return result
    finally:
        _running.reset(token)


def _query(text: Any) -> Any:
    """The block for a statement, or None where nothing is to be measured."""
    if not _patches.on or _running.get() or signals.handles() is None or get_value("suppress_instrumentation"):
        return None
    # Statements that were parsed before (`extract_statements`) hold their text.
    text = text if isinstance(text, str) else getattr(text, "query", None)
    return manual.query(text, system="duckdb") if isinstance(text, str) else None


def _execute(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def execute(self: Any, *args: Any, **kwargs: Any) -> Any:
        query = _query(args[0] if args else kwargs.get("query"))
        if query is None:
            return original(self, *args, **kwargs)
        batch = None
        if original.__name__ == "executemany":
            parameters = args[1] if len(args) > 1 else kwargs.get("parameters")
            batch = len(parameters) if isinstance(parameters, (list, tuple)) else None
        return _measured(query, batch, lambda: original(self, *args, **kwargs), rows=False)

    return execute


def _function(original: Callable[..., Any]) -> Callable[..., Any]:
    """`duckdb.execute`: the connection is a named argument, or the default one."""

    @functools.wraps(original)
    def execute(*args: Any, **kwargs: Any) -> Any:
        query = _query(args[0] if args else kwargs.get("query"))
        if query is None:
            return original(*args, **kwargs)
        return _measured(query, None, lambda: original(*args, **kwargs), rows=False)

    return execute


def _fetch(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def fetch(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _patches.on or _running.get() or signals.handles() is None:
            return original(self, *args, **kwargs)
        try:
            text = self.sql_query()
        except Exception:  # noqa: BLE001 - a relation over values or a DataFrame has no text
            text = None
        query = _query(text) if text else None
        if query is None:
            return original(self, *args, **kwargs)
        return _measured(query, None, lambda: original(self, *args, **kwargs), rows=original.__name__ == "fetchall")

    return fetch


class DuckdbInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # no type information
    """Measures duckdb connections and relations."""

    def instrumentation_dependencies(self) -> Collection[str]:
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        _patches.on = True
        register_post_import_hook(self._patch, "duckdb")

    def _patch(self, module: Any) -> None:
        if not _patches.on:
            return
        for name in _EXECUTE:
            _patches.put(module.DuckDBPyConnection, name, _execute)
        for name in _FETCH:
            _patches.put(module.DuckDBPyRelation, name, _fetch)
        for name in _EXECUTE:
            _patches.put(module, name, _function)

    def _uninstrument(self, **kwargs: Any) -> None:
        _patches.take_out()
