"""Whether this hubscope may use a lake: asked before anything is started that would write to it."""

from __future__ import annotations

from pathlib import Path

from hubscope.lake_schema import LAKE_VERSION_KEY, SCHEMAS, check_version


def check_lake(lake: str) -> None:
    """Raise LakeError if a newer hubscope wrote any table of the lake at a folder or an object-store URL.

    A table that is not there, or cannot be opened now, is not judged: whoever writes or reads it says what is wrong.
    """
    local = "://" not in lake
    tables = [name for name in SCHEMAS if not local or (Path(lake) / name / "_delta_log").is_dir()]
    if not tables:
        return
    from deltalake import DeltaTable  # 85 ms, needed only where there is a lake already
    from deltalake.exceptions import DeltaError

    for name in tables:
        try:
            configuration = DeltaTable(f"{lake.rstrip('/')}/{name}").metadata().configuration
        except (OSError, DeltaError, ValueError):
            continue
        check_version(configuration.get(LAKE_VERSION_KEY), lake)
