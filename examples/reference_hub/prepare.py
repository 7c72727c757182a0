"""Makes the hub's data: the memories of this environment, their vectors, the index.

    python -m reference_hub.prepare --data DIR [--memories 20000]

Done once for an environment (about 15 s on two cores) and found again afterwards; `--copy-to` then makes a data folder
for a hub to write to. What is made carries a stamp, and is made anew if the packages, the personas or the number asked
for have changed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import shutil
import sqlite3
import sys
from pathlib import Path

import numpy as np

from reference_hub import corpus, memory_store, personas, vector_index
from reference_hub.embedding import embed
from reference_hub.memory_store import importance, tags_of
from reference_hub.vector_index import VectorIndex

STAMP_FILE = "prepared.json"
MEMORIES = 20_000
FORMAT = 1  # changes when prepared data of an older version must not be used


def stamp(memories: int, personas_file: Path) -> dict[str, object]:
    """What prepared data depends on."""
    packages = sorted(f"{name} {version}" for name, (version, _) in _packages().items())
    return {
        "format": FORMAT,
        "memories": memories,
        "python": sys.version.split()[0],
        "packages": hashlib.sha256("\n".join(packages).encode()).hexdigest(),
        "personas": hashlib.sha256(personas_file.read_bytes()).hexdigest(),
    }


def is_prepared(folder: Path, wanted: dict[str, object]) -> bool:
    """Whether `folder` holds data made for exactly this."""
    try:
        found = json.loads((folder / STAMP_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    files = (memory_store.FILE, vector_index.FILE)
    return bool(found.get("stamp") == wanted and all((folder / file).is_file() for file in files))


def prepare(folder: Path, memories: int = MEMORIES, personas_file: Path = personas.DEFAULT_FILE) -> dict[str, object]:
    """Fills `folder` if it does not hold the data already; returns what it holds: memories, packages, bytes.

    Raises ValueError if the environment has too few docstrings to be worth searching.
    """
    people = personas.load(personas_file)
    wanted = stamp(memories, personas_file)
    if not is_prepared(folder, wanted):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STAMP_FILE).unlink(missing_ok=True)
        docstrings = corpus.collect(memories)
        if len(docstrings) < min(memories, 1000):
            raise ValueError(f"only {len(docstrings)} docstrings were found under {corpus.roots()}")
        vectors = np.stack([embed(docstring.text) for docstring in docstrings])
        _write_database(folder / memory_store.FILE, people, docstrings, vectors)
        index = VectorIndex.empty()
        index.add_all(np.arange(1, len(docstrings) + 1, dtype=np.uint64), vectors)
        index.save(folder / vector_index.FILE)
        facts = {
            "memories": len(docstrings),
            "packages": len({docstring.package for docstring in docstrings}),
            "bytes": sum((folder / file).stat().st_size for file in (memory_store.FILE, vector_index.FILE)),
        }
        (folder / STAMP_FILE).write_text(json.dumps({"stamp": wanted, "facts": facts}), encoding="utf-8")
    found: dict[str, object] = json.loads((folder / STAMP_FILE).read_text(encoding="utf-8"))["facts"]
    return found


def copy(folder: Path, target: Path) -> None:
    """A data folder of its own for a hub to write to: the prepared files as they are."""
    target.mkdir(parents=True, exist_ok=True)
    for file in (memory_store.FILE, vector_index.FILE, STAMP_FILE):
        shutil.copyfile(folder / file, target / file)


def _packages() -> dict[str, tuple[str, str]]:
    """Top-level module -> (version, summary) of the distribution that it comes from."""
    found: dict[str, tuple[str, str]] = {}
    for module, distributions in importlib.metadata.packages_distributions().items():
        metadata = importlib.metadata.metadata(distributions[0])
        found[module] = (metadata["Version"] or "", metadata["Summary"] or "")
    return found


def _write_database(
    path: Path, people: tuple[personas.Persona, ...], docstrings: list[corpus.Docstring], vectors: np.ndarray
) -> None:
    for leftover in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        leftover.unlink(missing_ok=True)
    modules = {docstring.module: id for id, docstring in enumerate(docstrings, 1) if docstring.kind == "module"}
    packages = _packages()
    connection = sqlite3.connect(path)
    try:
        connection.executescript(Path(__file__).with_name("schema.sql").read_text(encoding="utf-8"))
        with connection:
            connection.executemany(
                "INSERT INTO personas VALUES (?, ?, ?)", [(who.id, who.name, who.interests) for who in people]
            )
            connection.executemany(
                "INSERT INTO packages VALUES (?, ?, ?)", [(name, *facts) for name, facts in packages.items()]
            )
            connection.executemany(
                "INSERT INTO memories(id, text, vector, persona_id, package, module, name, kind, importance, module_id)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        id,
                        docstring.text,
                        vector.tobytes(),
                        personas.owner(people, docstring.package).id,
                        docstring.package,
                        docstring.module,
                        docstring.name,
                        docstring.kind,
                        importance(docstring.text),
                        modules.get(docstring.module) if docstring.kind != "module" else None,
                    )
                    for id, (docstring, vector) in enumerate(zip(docstrings, vectors, strict=True), 1)
                ),
            )
            connection.executemany(
                "INSERT INTO tags VALUES (?, ?)",
                ((id, tag) for id, docstring in enumerate(docstrings, 1) for tag in tags_of(docstring.text)),
            )
        connection.execute("ANALYZE")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reference_hub.prepare", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="where the prepared data is kept")
    parser.add_argument(
        "--memories", type=int, default=MEMORIES, metavar="N", help="at most so many (default: %(default)s)"
    )
    parser.add_argument("--personas", type=Path, default=personas.DEFAULT_FILE, metavar="FILE", help="who answers")
    parser.add_argument("--copy-to", type=Path, action="append", default=[], metavar="DIR", help="a hub's own copy")
    given = parser.parse_args(arguments)
    if given.memories < 100:
        parser.error(f"--memories must be 100 or more, got {given.memories}")
    try:
        facts = prepare(given.data, given.memories, given.personas)
        for target in given.copy_to:
            copy(given.data, target)
    except (ValueError, OSError, sqlite3.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
