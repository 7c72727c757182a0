"""SQL from a person, on a connection that changes nothing: neither the lake, nor a file, nor its own settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hubscope.errors import ConfigError

if TYPE_CHECKING:
    import duckdb

REMEDY: Final = "`hubscope sql` reads only. To keep a result: hubscope sql --format csv '…' > result.csv"


def lock(connection: duckdb.DuckDBPyConnection) -> None:
    """Leaves a connection the folders of the lake's files to read and nothing else, for good.

    DuckDB would still write inside an allowed folder; `check` refuses the statements that do.
    """
    (folders,) = connection.execute("SELECT getvariable('hubscope_folders')").fetchone() or ([],)
    allowed = ", ".join("'" + folder.replace("'", "''") + "'" for folder in folders)
    connection.execute("SET python_enable_replacements = false")  # a table is never one of our own variables
    connection.execute("SET autoinstall_known_extensions = false")
    connection.execute("SET autoload_known_extensions = false")
    connection.execute(f"SET allowed_directories = [{allowed}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def check(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    """The one statement in `sql`, if it only reads.

    Raises ConfigError for none, for several, and for every statement but SELECT (with its kin FROM, VALUES, DESCRIBE,
    SHOW, SUMMARIZE) and EXPLAIN of one.
    """
    import duckdb

    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise ConfigError(
            f"the query cannot be read: {error}", "see `hubscope sql --list` for queries that work"
        ) from error
    if len(statements) != 1:
        raise ConfigError(f"one query is wanted, and {len(statements)} were given", "give one statement")
    kind = statements[0].type
    if kind == duckdb.StatementType.EXPLAIN:
        explained = _explained(sql)
        if explained is not None:
            check(connection, explained)  # EXPLAIN ANALYZE runs what it explains
            return sql
    if kind != duckdb.StatementType.SELECT:
        name = "PIVOT without its values (ON column IN (…))" if kind == duckdb.StatementType.MULTI else kind.name
        raise ConfigError(f"{name} is refused", REMEDY)
    return sql


def _explained(sql: str) -> str | None:
    """What stands behind EXPLAIN [ANALYZE] [(options)]; None where that cannot be told."""
    import re

    uncommented = re.sub(r"^(?:\s+|--[^\n]*\n|/\*.*?\*/)+", "", sql, flags=re.DOTALL)
    matched = re.match(r"EXPLAIN(?:\s+ANALYZE)?(?:\s*\([^)]*\))?\s+(.*)", uncommented, re.IGNORECASE | re.DOTALL)
    return matched[1] if matched else None
