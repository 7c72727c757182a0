"""Whether this hubscope can use a lake: asked before anything is started that would write to it.

    python -m hubscope.exporters.lake_version LAKE

ends with 0, or with 4 and `[message, remedy]` as JSON on stdout.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hubscope.errors import EXIT_DONE, EXIT_UNREADABLE, LakeError
from hubscope.lake_log import check_log
from hubscope.lake_schema import LAKE_VERSION_KEY, SCHEMAS, check_version


def check_lake(lake: str) -> None:
    """Raise LakeError if a newer hubscope wrote any table of the lake at a folder or an object-store URL, or if the
    log of a local one is damaged: no row could be written to it until somebody mends it.

    A table that is not there, or cannot be opened now, is not judged: whoever writes or reads it says what is wrong.
    """
    local = "://" not in lake
    tables = [name for name in SCHEMAS if not local or (Path(lake) / name / "_delta_log").is_dir()]
    if not tables:
        return
    from deltalake import DeltaTable  # 85 ms, needed only where there is a lake already
    from deltalake.exceptions import DeltaError, TableNotFoundError

    for name in tables:
        check_log(lake, name)
        try:
            configuration = DeltaTable(f"{lake.rstrip('/')}/{name}").metadata().configuration
        except TableNotFoundError:
            continue
        except (OSError, DeltaError, ValueError):
            if not local:
                return  # a store that is away takes 4 s a table to say so
            continue
        check_version(configuration.get(LAKE_VERSION_KEY), lake)


def main() -> int:
    """The command line, for a caller that is not to carry what Delta needs."""
    try:
        check_lake(sys.argv[1])
    except LakeError as error:
        print(json.dumps([error.message, error.remedy]))
        return EXIT_UNREADABLE
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
