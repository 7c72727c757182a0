"""Leases: files `leases/<pid>` of the programs that a collector was started for. It leaves with the last of them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

_HURRY = "hurry"


def hurry(state_dir: Path) -> None:
    """Ask a collector that nobody needs any more to leave now, and not only after its grace time."""
    with contextlib.suppress(OSError):
        (state_dir / "leases" / _HURRY).touch(mode=0o600)


def take_hurry(state_dir: Path) -> bool:
    """Whether somebody asked for that; True once each time."""
    try:
        (state_dir / "leases" / _HURRY).unlink()
    except OSError:
        return False
    return True


def living(state_dir: Path) -> list[int]:
    """The pids that hold a lease and are alive. A lease of a dead one is removed: nobody else will."""
    pids: list[int] = []
    with contextlib.suppress(FileNotFoundError):
        for path in (state_dir / "leases").iterdir():
            if not path.name.isdigit():
                continue
            if is_alive(int(path.name), path):
                pids.append(int(path.name))
            else:
                path.unlink(missing_ok=True)
    return sorted(pids)


def is_alive(pid: int, written: Path) -> bool:
    """Alive, and older than the file that names it: a pid that was given to another process since is not the one."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= written.stat().st_mtime + 1.0
    except (psutil.Error, OSError):
        return False
