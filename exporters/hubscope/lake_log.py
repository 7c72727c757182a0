"""Whether the newest part of a local table's Delta log is whole: asked before delta-rs reads it.

delta-rs takes a commit of no bytes as one that changed nothing, so the rows it named are gone without a word; of one
that was cut off, or is missing among others, it tells with a backtrace of its own code, or a panic. A disk that was
full, a copy that was cut short and a power failure leave such files.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from hubscope.errors import LakeError
from hubscope.lake_schema import PARTITION

REMEDY: Final = "restore its `_delta_log` from a backup; or move the table aside and `hubscope import` the data again"
_COMMIT: Final = re.compile(r"(\d{20})\.json")
_CHECKPOINT: Final = re.compile(r"(\d{20})\.checkpoint(\..+)?\.parquet")
_PARQUET: Final = b"PAR1"  # the first and the last four bytes of every Parquet file
_LOOKS: Final = 3  # the log of a table in use is cleaned while we look


def check_log(lake: str, name: str) -> None:
    """Raise LakeError that names the first damaged file of what a reader needs of the table's log.

    That is the newest checkpoint and the commits after it: at most 20 small files in a lake of ours (1.8 ms for eight
    tables). A table on an object store is not asked: a store has whole objects or none.
    """
    root = Path(lake) / name
    if "://" in lake or not (root / "_delta_log").is_dir():
        return
    for left in reversed(range(_LOOKS)):
        try:
            found = _damage(root)
        except FileNotFoundError:  # cleaned since it was listed
            if not left:
                raise
            continue
        except OSError as error:
            found = f"{error.filename or root / '_delta_log'}: {error.strerror or error}"
        if found:
            raise LakeError(f"table {name} of the lake at {lake} cannot be opened: {found}", REMEDY)
        return


def _damage(root: Path) -> str:
    """What is wrong with the newest part of the log; '' for nothing."""
    log = root / "_delta_log"
    names = [path.name for path in log.iterdir()]
    commits = sorted(int(match[1]) for name in names if (match := _COMMIT.fullmatch(name)))
    checkpoints = {match[0]: int(match[1]) for name in names if (match := _CHECKPOINT.fullmatch(name))}
    newest = max(checkpoints.values(), default=-1)
    for name, version in checkpoints.items():
        if version == newest and not _is_parquet(log / name):
            return f"the checkpoint {log / name} was cut off"
    if not commits and newest < 0:
        has_rows = any(root.glob(f"{PARTITION}=*/*.parquet"))
        return f"{log} is empty, though there are rows beside it" if has_rows else ""
    after = [version for version in commits if version > newest]
    for expected, version in enumerate(after, start=newest + 1):
        if version != expected:
            return f"{log / f'{expected:020d}.json'} is missing, and later ones are there"
        if problem := _damage_of_commit(log / f"{version:020d}.json"):
            return problem
    return ""


def _damage_of_commit(path: Path) -> str:
    text = path.read_bytes()
    if not text.strip():
        return f"{path} is empty"
    start = text.rstrip().rfind(b"\n") + 1
    try:
        json.loads(text[start:])
    except ValueError:
        line = text.count(b"\n", 0, start) + 1
        return f"{path} is damaged in line {line}: it was cut off after {len(text)} B, or written over"
    return ""


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(4)
        size_bytes = file.seek(0, 2)
        file.seek(max(0, size_bytes - 4))
        return start == file.read(4) == _PARQUET and size_bytes > 2 * len(_PARQUET)
