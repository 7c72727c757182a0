"""Dead letters: requests that the worker cannot take, kept with the reason, so that nothing is silently gone.

`dead-letter/{segment}-{record}.{signal}.otlp` is the request as it was received (OTLP protobuf) and the `.json` beside
it says why and when. Names come from the place in the log, so setting the same record aside again changes nothing.
`hubscope import` takes the `.otlp` files, after an upgrade that can read them.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Final

from hubscope.collector.log.durable import write_durably
from hubscope.collector.log.wal import Record

FOLDER: Final = "dead-letter"


def set_aside(state_dir: Path, segment: int, index: int, record: Record, reason: str) -> Path:
    """Keep one record and its reason. Returns the payload's path. Raises OSError where the disk does not take it."""
    stem = f"{segment:016d}-{index:06d}.{record.signal.name.lower()}"
    path = _folder(state_dir) / f"{stem}.otlp"
    write_durably(path, record.payload)
    _explain(path, reason, segment=segment, record=index, received_unix_nano=record.received_unix_nano)
    return path


def set_segment_aside(state_dir: Path, segment: int, path: Path, reason: str) -> Path:
    """Keep a whole segment whose bytes are damaged: what can be read of it was read."""
    kept = _folder(state_dir) / f"{segment:016d}.damaged"
    write_durably(kept, path.read_bytes())
    _explain(kept, reason, segment=segment)
    return kept


def of_segment(state_dir: Path, segment: int) -> set[int]:
    """The indexes of a segment's records that were set aside."""
    stems = (path.name.split(".")[0] for path in (state_dir / FOLDER).glob(f"{segment:016d}-*.otlp"))
    return {int(stem.partition("-")[2]) for stem in stems}


def count(state_dir: Path) -> int:
    """How many dead letters there are."""
    folder = state_dir / FOLDER
    return sum(1 for path in folder.glob("*") if path.suffix in (".otlp", ".damaged")) if folder.is_dir() else 0


def _folder(state_dir: Path) -> Path:
    folder = state_dir / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _explain(path: Path, reason: str, **where: int) -> None:
    explanation = {
        "reason": reason,
        **where,
        "payload": path.name,
        "set_aside_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    write_durably(path.with_suffix(path.suffix + ".json"), json.dumps(explanation, indent=1).encode())
