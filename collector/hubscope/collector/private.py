"""Files that their owner alone reads, whoever writes them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

OTHERS: Final = 0o077  # what a mode must not hold: anything for group and others


def keep_files_private() -> None:
    """From now on this process and its children make files of mode 0600 and folders of mode 0700.

    A umask and not a mode at every `open`: Delta's log and statistics are written by libraries that take none.
    Windows has no such modes; there the user's own folders are private by their access lists.
    """
    os.umask(OTHERS)


def make_folder(folder: Path) -> None:
    """Make a folder and those missing above it for the owner alone: `mkdir(mode, parents=True)` spares the parents."""
    for place in [*reversed(folder.parents), folder]:
        if not place.exists():
            place.mkdir(mode=0o700, exist_ok=True)


def open_to_others(folder: Path, most: int = 20) -> Iterator[Path]:
    """The folder and what is in it that others may read or write, the first `most` of them. Links are not followed.

    A folder that others cannot enter hides everything below it, so nothing below a private one is looked at.
    """
    if os.name == "nt":
        return
    left = most
    waiting = [folder]
    while waiting and left:
        place = waiting.pop()
        try:
            mode = place.lstat().st_mode
            if stat.S_ISLNK(mode) or not mode & OTHERS:
                continue
            left -= 1
            yield place
            if stat.S_ISDIR(mode):
                waiting.extend(sorted(place.iterdir(), reverse=True))
        except OSError:
            continue  # removed meanwhile, or not ours to look at
