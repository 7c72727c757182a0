"""The memories in SQLite: fetch, browse, add.

Requests come in threads of their own and a sqlite3 connection belongs to one thread, so each unit of work opens a
connection and closes it. One idle connection stays open, or the last one to close would fold the write-ahead log
back into the database each time.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reference_hub.embedding import Vector, words

FILE = "memories.db"
BUSY_TIMEOUT_S = 10.0
PAGE_SIZE = 50
SHOWN_CHARACTERS = 200  # of each memory in a list
PROFILE_MEMORIES = 200
TAGS_A_MEMORY = 8

# A memory with all that an answer shows of it. Both versions run this; they differ in how many memories they ask for.
_MEMORY = """\
SELECT m.id, m.text, m.vector, p.name AS persona, m.package, k.version, m.module, m.name, m.kind, m.importance,
       parent.text AS module_text, json_group_array(t.tag) AS tags
FROM memories AS m
JOIN personas AS p ON p.id = m.persona_id
LEFT JOIN packages AS k ON k.name = m.package
LEFT JOIN memories AS parent ON parent.id = m.module_id
LEFT JOIN tags AS t ON t.memory_id = m.id
WHERE m.id {condition}
GROUP BY m.id"""

# One page of a persona's memories, with the two figures that its head line shows.
BROWSE = """\
SELECT id, package, module, name, importance, text,
       (SELECT count(*) FROM memories WHERE persona_id = :persona AND kind = :kind) AS total,
       (SELECT max(last_accessed) FROM memories WHERE persona_id = :persona AND kind = :kind) AS last_used
FROM memories
WHERE persona_id = :persona AND kind = :kind
ORDER BY importance DESC
LIMIT :limit OFFSET :offset"""

# It covers the filter, the order, and both figures: only the rows of the page itself are read from the table.
BROWSE_INDEX = "memories_browse"
_CREATE_BROWSE_INDEX = (
    f"CREATE INDEX IF NOT EXISTS {BROWSE_INDEX} ON memories(persona_id, kind, importance, last_accessed)"
)


@dataclass(frozen=True)
class Memory:
    id: int
    text: str
    vector: Vector
    persona: str
    package: str
    version: str | None
    module: str
    name: str
    kind: str
    importance: float
    module_text: str | None
    tags: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module


@dataclass(frozen=True)
class Line:
    """A memory in a list."""

    id: int
    title: str
    package: str
    importance: float
    beginning: str


@dataclass(frozen=True)
class Page:
    total: int
    last_used: float  # Unix time, 0 is never
    lines: tuple[Line, ...]


class MemoryStore:
    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(path)
        self.path = path
        self._idle = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, check_same_thread=False)

    def close(self) -> None:
        self._idle.close()

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """A connection for one unit of work, committed at its end, rolled back if it raises."""
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S)
        try:
            with connection:
                yield connection
        finally:
            connection.close()

    def use_browse_index(self, wanted: bool) -> None:
        """Makes the index that browsing needs, or takes it away; nothing is done where that is so already."""
        with self.connection() as connection:
            connection.execute(_CREATE_BROWSE_INDEX if wanted else f"DROP INDEX IF EXISTS {BROWSE_INDEX}")

    def memories(self, ids: Sequence[int]) -> list[Memory]:
        """The memories of these ids, in one query, in the order of `ids`; unknown ids are left out."""
        if not ids:
            return []
        condition = f"IN ({', '.join('?' * len(ids))})"
        with self.connection() as connection:
            found = {
                row[0]: _memory(row) for row in connection.execute(_MEMORY.format(condition=condition), tuple(ids))
            }
        return [found[id] for id in ids if id in found]

    def memory(self, id: int) -> Memory | None:
        with self.connection() as connection:
            row = connection.execute(_MEMORY.format(condition="= ?"), (id,)).fetchone()
        return None if row is None else _memory(row)

    def browse(self, persona: str, kind: str, page: int = 1, page_size: int = PAGE_SIZE) -> Page:
        """Page `page` (from 1) of the persona's memories of one kind, the most important first."""
        values = {"persona": persona, "kind": kind, "limit": page_size, "offset": (page - 1) * page_size}
        with self.connection() as connection:
            rows = connection.execute(BROWSE, values).fetchall()
        lines = tuple(
            Line(id, f"{module}.{name}" if name else module, package, importance, text[:SHOWN_CHARACTERS])
            for id, package, module, name, importance, text, _, _ in rows
        )
        return Page(rows[0][6], rows[0][7], lines) if rows else Page(0, 0.0, ())

    def package_vectors(self, package: str) -> list[Vector]:
        """The vectors of the first 200 memories of a package."""
        with self.connection() as connection:
            rows = connection.execute(
                "SELECT vector FROM memories WHERE package = ? ORDER BY id LIMIT ?", (package, PROFILE_MEMORIES)
            ).fetchall()
        return [np.frombuffer(vector, dtype=np.float32) for (vector,) in rows]

    def touch(self, ids: Sequence[int]) -> None:
        """Notes that these memories were quoted now."""
        with self.connection() as connection:
            connection.execute(
                f"UPDATE memories SET last_accessed = ? WHERE id IN ({', '.join('?' * len(ids))})", (time.time(), *ids)
            )

    def add(self, persona: str, text: str, vector: Vector) -> int:
        """Stores a note of the user's and returns its id."""
        with self.connection() as connection:
            cursor = connection.execute(
                "INSERT INTO memories(text, vector, persona_id, package, module, name, kind, importance)"
                " VALUES (?, ?, ?, 'notes', 'notes', '', 'note', ?)",
                (text, vector.tobytes(), persona, importance(text)),
            )
            id = cursor.lastrowid
            assert id is not None
            connection.executemany(
                "INSERT INTO tags(memory_id, tag) VALUES (?, ?)", [(id, tag) for tag in tags_of(text)]
            )
        return id

    def vectors_after(self, id: int) -> list[tuple[int, Vector]]:
        """(id, vector) of the memories that were stored after `id`."""
        with self.connection() as connection:
            rows = connection.execute("SELECT id, vector FROM memories WHERE id > ? ORDER BY id", (id,)).fetchall()
        return [(row_id, np.frombuffer(vector, dtype=np.float32)) for row_id, vector in rows]

    def lengths(self, persona: str) -> list[int]:
        """The number of characters of each of the persona's memories."""
        with self.connection() as connection:
            rows = connection.execute("SELECT length(text) FROM memories WHERE persona_id = ?", (persona,)).fetchall()
        return [length for (length,) in rows]

    def last_id(self) -> int:
        """The id of the newest memory: ids are given in order and never freed, so it is also their number."""
        with self.connection() as connection:
            (last,) = connection.execute("SELECT max(id) FROM memories").fetchone()
        return int(last or 0)


def importance(text: str) -> float:
    """How much a text says: the number of different words in it that count."""
    return float(len(set(words(text))))


def tags_of(text: str) -> tuple[str, ...]:
    """The 8 words that a text uses most."""
    return tuple(word for word, _ in Counter(words(text)).most_common(TAGS_A_MEMORY))


def _memory(row: tuple[int, str, bytes, str, str, str | None, str, str, str, float, str | None, str]) -> Memory:
    id, text, vector, persona, package, version, module, name, kind, weight, module_text, tags = row
    exact = np.frombuffer(vector, dtype=np.float32)
    split = tuple(tag for tag in json.loads(tags) if tag is not None)  # a memory without tags gives [null]
    return Memory(id, text, exact, persona, package, version, module, name, kind, weight, module_text, split)
