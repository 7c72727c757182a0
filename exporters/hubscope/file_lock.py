"""A lock on an open file that the kernel lets go of when its owner dies, however that happens."""

from __future__ import annotations

import os
import sys

_BYTE = 1 << 30  # locked on Windows, far behind what is written: others may read that


def try_lock(fd: int) -> bool:
    """Whether the lock is now ours. It ends with the last descriptor of this opening."""
    try:
        if sys.platform == "win32":
            import msvcrt

            at = os.lseek(fd, 0, os.SEEK_CUR)
            os.lseek(fd, _BYTE, os.SEEK_SET)
            try:
                msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
            finally:
                os.lseek(fd, at, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
