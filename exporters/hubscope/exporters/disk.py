"""What a full disk looks like from above delta-rs, and how much room there is before it is met."""

from __future__ import annotations

import errno
import re
import shutil
import sys
from typing import Final

from hubscope.errors import RetryableError

# Below this nothing is appended: a commit of seven tables with a checkpoint stays under 20 MiB; a compaction does not.
MIN_FREE_BYTES: Final = 64 << 20
_BACKTRACE: Final = re.compile(r"\n\s*(?:stack backtrace:|0: )")
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(RetryableError):
    """The lake's disk has no room: nothing can be written until somebody makes some."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "free some disk space; nothing is lost meanwhile")


def free_bytes(uri: str) -> int:
    """Room at a folder; more than anybody needs at a URL, or where the disk cannot be asked."""
    try:
        return sys.maxsize if "://" in uri else shutil.disk_usage(uri).free
    except OSError:
        return sys.maxsize  # the folder is gone: the write says so


def is_panic(error: BaseException) -> bool:
    """Whether a Rust library panicked: pyo3 makes that a BaseException, of a class that cannot be imported."""
    return type(error).__name__ == "PanicException"


def is_full(error: BaseException, uri: str) -> bool:
    """Whether an error of delta-rs or of the system means that the disk was full. A panic does not say: it is asked."""
    if is_panic(error):
        return free_bytes(uri) < MIN_FREE_BYTES
    return getattr(error, "errno", None) in _FULL or any(f"(os error {number})" in str(error) for number in _FULL)


def one_line(error: BaseException) -> str:
    """An error's text without the lines, the colours and the backtrace that delta-rs puts into it."""
    text = re.sub(r"\x1b\[\d*m|↳", " ", _BACKTRACE.split(str(error))[0])
    return " ".join(text.split())[:500] or type(error).__name__
