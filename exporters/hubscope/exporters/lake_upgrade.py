"""A table that an older hubscope wrote gets what it lacks, in place: Delta's schema evolution touches no file.

Readers take a column that a file was written without as null, and merges write it so. What a newer hubscope has added
stays: columns that this one does not know are carried through merges (`lake_merge`).
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.exceptions import CommitFailedError

from hubscope.errors import LakeError
from hubscope.lake_schema import LAKE_VERSION_KEY, SCHEMAS, check_version

ATTEMPTS = 10  # of collectors that upgrade one lake at the same moment one wins each time


def upgrade(table: DeltaTable, name: str, url: str, lake: str, configuration: Mapping[str, str]) -> DeltaTable:
    """The table with all columns of `SCHEMAS[name]`, the lake's version, and this `configuration`.

    Raises LakeError for a table of a newer hubscope, or one that is none of hubscope's and has other columns.
    """
    for attempt in range(ATTEMPTS):
        try:
            return _upgraded(table, name, url, lake, configuration)
        except CommitFailedError:
            if attempt == ATTEMPTS - 1:
                raise
            table.update_incremental()
    raise AssertionError


def _upgraded(table: DeltaTable, name: str, url: str, lake: str, configuration: Mapping[str, str]) -> DeltaTable:
    present = table.metadata().configuration
    version = present.get(LAKE_VERSION_KEY)
    check_version(version, lake)
    known = {field.name for field in table.schema().fields}
    missing = [field for field in SCHEMAS[name] if field.name not in known]
    if missing and version is None:
        raise LakeError(
            f"{url}: a Delta table without the columns {', '.join(sorted(field.name for field in missing))}",
            "give --lake a folder of its own; this table was not made by hubscope",
        )
    if missing:
        table.alter.add_columns(Schema.from_arrow(pa.schema(missing)).fields)
        table.update_incremental()
    lacking = {key: value for key, value in configuration.items() if present.get(key) != value}
    if version is not None and lacking:
        table.alter.set_table_properties(lacking, raise_if_not_exists=False)
        table.update_incremental()
    return table
