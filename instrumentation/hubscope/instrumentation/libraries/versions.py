"""The oldest and newest version of each library that its instrumentation is tested with.

`python tests/suites/versions.py` installs both into environments of their own and runs the library's tests there.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Claim(NamedTuple):
    """`tests` are words of pytest's `-k`, in `file`; `beside` are packages that the old version needs held back."""

    distribution: str
    entry_point: str
    oldest: str
    newest: str
    file: str
    tests: str
    beside: tuple[str, ...] = ()


CLAIMS: Final[tuple[Claim, ...]] = (
    Claim("aiosqlite", "hubscope_sqlite3", "0.20.0", "0.22.1", "test_sqlite3.py", "aiosqlite", ("sqlalchemy",)),
    Claim("cachetools", "hubscope_cachetools", "5.3.0", "8.0.2", "test_caches.py", "cachetools"),
    Claim("chromadb", "hubscope_chromadb", "1.5.9", "1.5.9", "test_vectors.py", "chromadb"),
    Claim("diskcache", "hubscope_diskcache", "5.4.0", "5.6.3", "test_caches.py", "diskcache"),
    Claim("duckdb", "hubscope_duckdb", "1.2.0", "2.0.0", "test_duckdb.py", ""),
    Claim("faiss-cpu", "hubscope_faiss", "1.8.0", "1.15.1", "test_vectors.py", "faiss", ("numpy<2",)),
    Claim("hnswlib", "hubscope_hnswlib", "0.8.0", "0.8.0", "test_vectors.py", "hnswlib"),
    Claim("lancedb", "hubscope_lancedb", "0.40.0", "0.40.0", "test_vectors.py", "lancedb"),
    Claim("mcp", "hubscope_mcp", "1.30.0", "2.3.0", "test_plugins.py", "mcp"),
    Claim("pluggy", "hubscope_pluggy", "1.5.0", "1.7.0", "test_pluggy.py", ""),
    Claim("qdrant-client", "hubscope_qdrant", "1.20.0", "1.20.0", "test_vectors.py", "qdrant"),
    Claim("sqlalchemy", "hubscope_sqlite3", "2.1.9", "2.1.9", "test_sqlite3.py", "sqlalchemy", ("aiosqlite",)),
    Claim("stevedore", "hubscope_stevedore", "5.10.0", "5.10.0", "test_plugins.py", "stevedore"),
    Claim("theine", "hubscope_theine", "2.0.0", "2.0.0", "test_caches.py", "theine"),
    Claim("usearch", "hubscope_usearch", "2.26.6", "2.26.6", "test_usearch.py", ""),
)
