"""How DuckDB reads a lake's files on an object store: through deltalake, which has the credentials already.

DuckDB's own extension for S3 is downloaded at run time, and nothing here needs another network than the store's. It
does take any fsspec file system; this one opens files with the library that opened the table, so that the usual
environment variables (AWS_…, GOOGLE_…, AZURE_…) mean the same for both, and ranges of a file are read, not the whole.
"""

from __future__ import annotations

import datetime
import threading
from typing import Any, Final

import pyarrow.fs as pafs
from deltalake.fs import DeltaStorageHandler
from fsspec import AbstractFileSystem

from hubscope.lake_paths import split

# Not `s3`: DuckDB would look for its extension. The URL's own scheme is the first part of the path.
PROTOCOL: Final = "lake"
_LONG_AGO: Final = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)


def place_of(url: str) -> str:
    """An object's URL as DuckDB is to be told it."""
    scheme, _, rest = url.partition("://")
    return f"{PROTOCOL}://{scheme}/{rest}"


class ObjectStore(AbstractFileSystem):  # type: ignore[misc]
    """The files of one snapshot. Their sizes come from the log, so that none is asked for."""

    protocol = PROTOCOL
    cachable = False

    def __init__(self, sizes: dict[str, int]) -> None:
        """`sizes`: bytes of each file, by `place_of` its URL."""
        super().__init__()
        self._sizes = sizes
        self._stores: dict[str, pafs.FileSystem] = {}
        self._lock = threading.Lock()  # DuckDB opens files from several threads

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path

    def glob(self, path: str, **options: Any) -> list[str]:
        """DuckDB asks what a pattern means; these are no patterns."""
        return [path] if path in self._sizes else []

    def exists(self, path: str, **options: Any) -> bool:
        return path in self._sizes

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        if path not in self._sizes:
            raise FileNotFoundError(path)
        return {"name": path, "size": self._sizes[path], "type": "file"}

    def modified(self, path: str) -> datetime.datetime:
        """Files of a lake are never changed."""
        return _LONG_AGO

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode != "rb" or path not in self._sizes:
            raise PermissionError(f"{path}: only the lake's files are opened, to be read")
        scheme, _, rest = path.removeprefix(f"{PROTOCOL}://").partition("/")
        base, below = split(f"{scheme}://{rest}")
        with self._lock:
            if base not in self._stores:
                self._stores[base] = pafs.PyFileSystem(DeltaStorageHandler(base))
        return self._stores[base].open_input_file(below)
