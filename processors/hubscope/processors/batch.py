"""What travels through the processors: one sealed segment of the log, decoded, and what was derived from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import pyarrow as pa

from hubscope.lake_schema import SCHEMAS


@dataclass(frozen=True)
class Batch:
    """The rows of one segment. Both mappings go from a lake table's name to rows in `lake_schema.SCHEMAS`.

    A table that got no rows may be absent. `tables` is what arrived and stays as it arrived; what a processor
    makes of it goes to `derived`, so that a forwarder can pass the arrived bytes on and encode only the rest. Only
    sampling, the last, takes spans out of `tables` and puts those in whose traces are decided.
    """

    segment: int  # the log segment's number, which is also the Delta transaction's version
    received_unix_nano: int  # when the segment's first record was received
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    derived: Mapping[str, pa.Table] = field(default_factory=dict)
    last_received_unix_nano: int = 0  # when its last record was
    violating: frozenset[str] = frozenset()  # ids of traces in which a quota was violated
    # Index of a request -> its bytes, where redaction or a limit changed it: what a forwarder sends in its place.
    changed: Mapping[int, bytes] = field(default_factory=dict)
    # What processors made of the batch for each other (`SpanColumns.of`), until `forget_shared`.
    shared: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def forget_shared(self) -> None:
        """Let go of it: what waits for a destination is to take no more memory than its rows."""
        self.shared.clear()

    def with_derived(self, table_name: str, rows: pa.Table) -> Batch:
        """The same batch with `rows` behind what was already derived for `table_name`; no rows change nothing.

        Raises KeyError for a table the lake does not have and ValueError for rows in another schema.
        """
        schema = SCHEMAS[table_name]
        if not rows.schema.equals(schema):
            wanted, got = set(schema), set(rows.schema)
            difference = ", ".join(sorted(f.name for f in wanted ^ got)) or "the order of the columns"
            raise ValueError(f"derived rows for {table_name} are not in the lake's schema: {difference}")
        if rows.num_rows == 0:
            return self
        before = self.derived.get(table_name)
        after = rows if before is None else pa.concat_tables([before, rows])
        return replace(self, derived={**self.derived, table_name: after})

    def rows(self, table_name: str) -> Iterator[pa.Table]:
        """The tables of that name that hold rows: what arrived, then what was derived (zero, one or two)."""
        for source in (self.tables, self.derived):
            table = source.get(table_name)
            if table is not None and table.num_rows:
                yield table


# Takes a batch, gives a batch; never drops what arrived (sampling alone does, and counts it). Processors with windows
# are instances with `__call__`.
Processor: TypeAlias = Callable[[Batch], Batch]
