"""How far each exporter is: one small file each, `cursors/<name>`, with the number of the last segment it has.

`cursors/@processed` is no exporter's: the names of those are quoted, so none can be called so.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from hubscope.collector.log.durable import write_durably
from hubscope.errors import LakeError


class Cursor:
    """A place in the log. 0 is before the first segment; `exists` says whether there was a file."""

    def __init__(self, state_dir: Path, name: str, *, is_exporter: bool = True) -> None:
        self.path = state_dir / "cursors" / (quote(name, safe="") if is_exporter else f"@{name}")
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.exists = self.path.exists()
        self.segment = self._read()

    def advance(self, segment: int) -> None:
        """Set the place, durably: after a loss of power it reads the old number or the new one."""
        write_durably(self.path, f"{segment}\n".encode())
        self.segment = segment
        self.exists = True

    def _read(self) -> int:
        try:
            return int(self.path.read_text("ascii"))
        except FileNotFoundError:
            return 0
        except (ValueError, OSError) as error:
            raise LakeError(
                f"{self.path}: no cursor can be read: {error}",
                "write the number of the last segment that this exporter has into it (0 for none); the lake refuses"
                " segments it has already, so a number too low costs time only",
            ) from error
