"""Where a result goes: stdout, or a file that is either whole or not there."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import click

from hubscope.errors import LakeError


def write(text: str, path: str | None) -> None:
    """`text` to stdout, or to the file `path`. Raises LakeError where the file cannot be written."""
    if path is None or path == "-":
        click.echo(text, nl=False, color=None if sys.stdout.isatty() else False)
        return
    write_file(Path(path), text)


def write_file(path: Path, text: str) -> None:
    """Writes beside the target and renames, so that a full disk leaves the old file as it was."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise LakeError(
            f"{path} cannot be written: {error.strerror or error}", "name another file, or make room and try again"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
