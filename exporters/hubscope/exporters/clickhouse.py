"""ClickHouse: the lake's rows into the tables of the stock Collector's ClickHouse exporter, as Arrow over HTTP.

An insert carries a token, `<writer>/<segment>/<table>`, by which ClickHouse knows that it has these rows: replicated
tables always do, plain ones where `non_replicated_deduplication_window` is set, as it is in those made here. There a
segment that is sent again, after an answer was lost or a worker killed, counts once. A plain table made by somebody
else has no such memory: there delivery is at least once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from socket import socket
from typing import TYPE_CHECKING, Any, Final, Literal
from weakref import WeakSet

from hubscope.errors import RetryableError
from hubscope.exporters.answers import shown
from hubscope.exporters.base import Bound, retryable
from hubscope.exporters.deadline import deadline
from hubscope.exporters.tls import Tls

if TYPE_CHECKING:  # for the reason that base.py gives
    import pyarrow as pa

    from hubscope.exporters.base import RecordLike
    from hubscope.processors.batch import Batch

# ClickHouse's codes for rows that it cannot take, now or later. Everything else (no such table, no permission, too many
# parts, no memory, read-only) is for somebody to mend, and the rows wait for that within the bound.
_REFUSED_DATA: Final = frozenset(
    {
        6,  # CANNOT_PARSE_TEXT
        27,  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
        33,  # CANNOT_READ_ALL_DATA
        53,  # TYPE_MISMATCH
        69,  # ARGUMENT_OUT_OF_BOUND
        70,  # CANNOT_CONVERT_TYPE
        117,  # INCORRECT_DATA
        128,  # TOO_LARGE_ARRAY_SIZE
        131,  # TOO_LARGE_STRING_SIZE
        321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
        349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        469,  # VIOLATED_CONSTRAINT
        636,  # CANNOT_EXTRACT_TABLE_STRUCTURE
    }
)
# Which rows a table refuses is found by halves: one of 65,536 in 33 inserts. After so many a part that is refused is
# dropped whole, so there are at most twice as many. A table that took nothing of halves, quarters and eighths most
# likely refuses all: a wrong type, say.
MAX_INSERTS: Final = 128
MAX_FOR_NOTHING: Final = 15

_SETTINGS: Final = {
    "async_insert": "0",  # an insert that is answered is stored
    "max_partitions_per_insert_block": "0",  # a sender with a broken clock must not keep everybody's rows out
    "input_format_null_as_default": "1",
}


@dataclass
class _Search:
    """Ranges [first, end) of a table's rows that are still to be inserted, largest first."""

    left: deque[tuple[int, int]]
    inserts: int = 0
    has_sent: bool = False

    @property
    def is_over(self) -> bool:
        return self.inserts >= (MAX_INSERTS if self.has_sent else MAX_FOR_NOTHING)


@dataclass(frozen=True)
class ClickHouseConfig:
    """One ClickHouse, at the URL of its HTTP interface: http://host:8123, https://host:8443."""

    name: str
    url: str
    database: str = "default"
    username: str = "default"
    password: str = ""  # no message and no metric holds it
    create_schema: bool = True
    engine: str = "MergeTree"  # of tables that are made here
    ttl_s: float = 0.0  # of rows in tables that are made here; 0 is for ever
    timeout_s: float = 30.0
    tls: Tls = field(default_factory=Tls)
    bound: Bound = field(default_factory=Bound)


class ClickHouseExporter:
    """Inserts a segment's rows, a table at a time; where one refuses some, the others go in. Counts are of rows.

    Not thread-safe: one thread calls it.
    """

    takes: Literal["records", "rows"] = "rows"

    def __init__(self, config: ClickHouseConfig, writer_id: str) -> None:
        self.name = config.name
        self.sent = 0
        self.dropped = 0
        self.rejected_items = 0  # refused rows are `dropped`
        self.last_refusal = ""
        self._config = config
        self._writer_id = writer_id
        self._client: Any = None
        self._pool: Any = None
        self._sockets: WeakSet[socket] = WeakSet()  # those that the client has open
        self._columns: dict[str, tuple[str, ...]] = {}
        self._segment = 0
        self._done: dict[str, int] = {}  # rows of that segment's tables which need not be sent again
        self._searches: dict[str, _Search] = {}  # of that segment's tables which are begun

    def export(self, batch: Batch, records: Sequence[RecordLike] = ()) -> None:
        """Insert all the rows. Those that ClickHouse refuses for good are counted as dropped and passed.

        Raises RetryableError where it is not to be had now; the next call with the same segment goes on where this one
        stopped.
        """
        import pyarrow as pa

        from hubscope.exporters.clickhouse_schema import TABLES

        if batch.segment != self._segment:
            self._segment, self._done, self._searches = batch.segment, {}, {}
        for table in TABLES:  # not the lake's rollup, which is made of the others
            rows = list(batch.rows(table))
            if rows and table not in self._done:
                self._insert(table, pa.concat_tables(rows))

    def sent_of(self, segment: int) -> int:
        """How many rows of a segment are done with, where it is the one that `export` was last called with."""
        return sum(self._done.values()) if segment == self._segment else 0

    def close(self) -> None:
        """Let go of the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._pool is not None:
            self._pool.clear()

    def _insert(self, table: str, rows: pa.Table) -> None:
        search = self._searches.setdefault(table, _Search(deque([(0, rows.num_rows)])))
        while search.left:
            first, end = search.left[0]
            if self._is_sent(table, rows.slice(first, end - first), (first, end), rows.num_rows):
                search.has_sent = True
                self.sent += end - first
            elif end - first > 1 and not search.is_over:
                middle = (first + end) // 2
                search.left += ((first, middle), (middle, end))
            else:
                self.dropped += end - first
            search.inserts += 1
            search.left.popleft()
        self._done[table] = rows.num_rows

    def _is_sent(self, table: str, rows: pa.Table, which: tuple[int, int], of: int) -> bool:
        """Whether ClickHouse took these rows; not where it refuses them for good. Raises RetryableError else."""
        from clickhouse_connect.driver.exceptions import Error

        from hubscope.exporters.clickhouse_rows import rows_for

        token = f"{self._writer_id}/{self._segment}/{table}"
        if which != (0, of):
            token += f"/{which[0]}-{which[1]}"
        try:
            with deadline(self._config.timeout_s, lambda: self._sockets):
                client = self._connected()
                sent = rows_for(rows, self._columns_of(client, table))
                settings = {**_SETTINGS, "insert_deduplication_token": token}
                client.insert_arrow(table, sent, database=self._config.database, settings=settings)
        except RetryableError:
            raise
        except Error as error:
            self._columns.pop(table, None)  # somebody may have changed the table
            if error.code not in _REFUSED_DATA:
                self.close()
                raise retryable(f"{self._config.url}: {table}: {_text(error)}") from error
            self.last_refusal = f"{table}: {_text(error)}"
            return False
        except (OSError, ValueError) as error:  # what the library does not turn into one of its own
            self.close()
            raise retryable(f"{self._config.url}: {table}: {_text(error)}") from error
        return True

    def _connected(self) -> Any:
        if self._client is None:
            from hubscope.exporters.clickhouse_client import connect, pool

            self._pool = self._pool or pool(self._config, self._sockets)
            self._client = connect(self._config, self._pool)
        return self._client

    def _columns_of(self, client: Any, table: str) -> tuple[str, ...]:
        """The table's columns that can be inserted, made first where it is absent. Raises RetryableError without it."""
        if table not in self._columns:
            found = self._ask_columns(client, table)
            if not found and self._config.create_schema:
                from hubscope.exporters.clickhouse_schema import create_statements

                config = self._config
                for statement in create_statements(config.database, table, config.engine, config.ttl_s):
                    client.command(statement)
                found = self._ask_columns(client, table)
            if not found:
                raise retryable(
                    f"{self._config.url}: there is no table {self._config.database}.{table}, or none for this user"
                )
            self._columns[table] = found
        return self._columns[table]

    def _ask_columns(self, client: Any, table: str) -> tuple[str, ...]:
        answer = client.query(
            "SELECT name FROM system.columns WHERE database = {database:String} AND table = {table:String}"
            " AND default_kind NOT IN ('MATERIALIZED', 'ALIAS') ORDER BY position",
            parameters={"database": self._config.database, "table": table},
        )
        return tuple(row[0] for row in answer.result_rows)


def _text(error: BaseException) -> str:
    """The first line of what began it; a value that ClickHouse quotes of a row is cut with the rest."""
    while error.__cause__ is not None:
        error = error.__cause__
    return shown((str(error).strip() or type(error).__name__).splitlines()[0])
