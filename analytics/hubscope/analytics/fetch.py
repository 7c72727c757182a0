"""Rows out of DuckDB by way of Arrow.

DuckDB's own Python rows need the package pytz for every time with a zone, and the lake's times all have one. Arrow's
do not, and they come as `datetime` in UTC. Maps come as dicts, sums of integers as int, a run as one text.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import duckdb
import pyarrow as pa

from hubscope.analytics.damage import naming_damage

RUN_FIELDS: Final = ["instance", "version"]  # of `run_of`, see connect.MACROS


def run_text(instance: str, version: str) -> str:
    """A run (`run_of`) as it is shown and as a key in Python: `8f3c@1.9`, `8f3c` without a version."""
    return f"{instance}@{version}" if version else instance


def fetch(
    connection: duckdb.DuckDBPyConnection, sql: str, values: Mapping[str, Any] | None = None
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """The columns' names and all rows of one reading statement.

    Raises duckdb.Error as DuckDB does, and LakeError where a damaged file of the lake is the cause.
    """
    with naming_damage(connection):
        relation = connection.sql(sql, params=dict(values)) if values else connection.sql(sql)
        table = relation.to_arrow_table()
    columns = [
        [_plain(value, field.type) for value in column.to_pylist()]
        for field, column in zip(table.schema, table.columns, strict=True)
    ]
    return tuple(table.schema.names), list(zip(*columns, strict=True))


def _plain(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_map(kind):
        return {key: _plain(item, kind.item_type) for key, item in value}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [_plain(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind) and [field.name for field in kind] == RUN_FIELDS:
        return run_text(value["instance"], value["version"])
    if pa.types.is_struct(kind):
        return {field.name: _plain(value[field.name], field.type) for field in kind}
    if isinstance(value, Decimal) and kind.scale == 0:
        return int(value)
    return value
