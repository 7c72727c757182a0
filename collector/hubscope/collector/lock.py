"""One owner for a folder: a lock file that the kernel lets go of when its owner dies, however that happens."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hubscope.errors import ConfigError
from hubscope.exporters import disk
from hubscope.exporters.disk import DiskFullError
from hubscope.file_lock import try_lock


@contextlib.contextmanager
def hold(path: Path, wait_s: float = 0.0, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock inside the block, after waiting for its owner up to `wait_s`, and calling `waiting` meanwhile.

    Raises ConfigError that names the owner's pid, or a folder that cannot be written; DiskFullError for a full disk.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    except OSError as error:
        if disk.is_full(error, str(path.parent)):
            raise DiskFullError(f"{path.parent}: {error.strerror}") from error
        raise ConfigError(
            f"{path.parent} cannot be written: {error.strerror}", "name another --lake or --state"
        ) from error
    try:
        deadline_s = time.monotonic() + wait_s
        while not try_lock(fd):
            if time.monotonic() >= deadline_s:
                owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip() if os.name != "nt" else ""
                raise ConfigError(
                    f"another collector{f' (pid {owner})' if owner else ''} already uses {path.parent}",
                    "stop it, or give this one a lake and a state folder of its own (--lake, --state)",
                )
            waiting()
            time.sleep(0.05)
        with contextlib.suppress(OSError):  # on a full disk the owner stays nameless
            os.ftruncate(fd, 0)
            os.write(fd, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(fd)
