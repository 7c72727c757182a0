"""The hub's memories: the docstrings of the packages installed in this environment and of the standard library.

They are read with `ast`, nothing is imported. The texts stay the property of their authors and never leave the
machine: the demo collects them from what pip has already put there.
"""

from __future__ import annotations

import ast
import inspect
import os
import sysconfig
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

MIN_CHARACTERS = 40  # shorter ones ("Return self.") say nothing that a search could find
MAX_CHARACTERS = 4_000  # a memory is a note, not a manual: 1 % of the docstrings are longer and are cut
MAX_FILE_BYTES = 200_000  # larger modules are generated tables: much to parse, few docstrings
FILES_A_CHUNK = 64


class Docstring(NamedTuple):
    """One memory's source. `name` is the dotted path inside the module, "" for the module itself."""

    package: str
    module: str
    name: str
    kind: str  # module | class | function | method
    text: str


def roots() -> tuple[Path, ...]:
    """The folders that are read: site-packages first, then the standard library (site-packages inside it left out)."""
    paths = sysconfig.get_paths()
    return tuple(dict.fromkeys(Path(paths[key]).resolve() for key in ("purelib", "platlib", "stdlib")))


def python_files(root: Path) -> Iterator[tuple[str, Path]]:
    """(path relative to `root`, path) of every module worth parsing, in no particular order."""
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if f not in {"__pycache__", "site-packages", "test", "tests"}]
        for file in files:
            path = Path(folder, file)
            if file.endswith(".py") and path.stat().st_size <= MAX_FILE_BYTES:
                yield path.relative_to(root).as_posix(), path


def docstrings_of(relative: str, path: Path) -> list[Docstring]:
    """The docstrings of one file; a file that is no valid Python of this version has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's modules are not ours to report
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return []
    parts = relative.removesuffix(".py").removesuffix("/__init__").split("/")
    package, module = parts[0], ".".join(parts)
    found: list[Docstring] = []
    stack: list[tuple[ast.AST, str, str]] = [(tree, "", "module")]
    while stack:
        node, name, kind = stack.pop()
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        match node.body[:1]:
            case [ast.Expr(value=ast.Constant(value=str() as raw))] if len(raw) >= MIN_CHARACTERS:
                text = inspect.cleandoc(raw)[:MAX_CHARACTERS]
                if len(text) >= MIN_CHARACTERS:
                    found.append(Docstring(package, module, name, kind, text))
        prefix = f"{name}." if name else ""
        inside_class = isinstance(node, ast.ClassDef)
        for child in reversed(node.body):
            if isinstance(child, ast.ClassDef):
                stack.append((child, prefix + child.name, "class"))
            elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                stack.append((child, prefix + child.name, "method" if inside_class else "function"))
    return found


def _chunk(files: list[tuple[str, Path]]) -> list[Docstring]:
    return [docstring for relative, path in files for docstring in docstrings_of(relative, path)]


def collect(limit: int, processes: int | None = None) -> list[Docstring]:
    """At most `limit` different docstrings, the same ones in the same order for the same environment.

    Files are taken in the order of a checksum of their path, so that any limit is a sample of all packages and
    not the alphabet's first ones.
    """
    files = [pair for root in roots() for pair in python_files(root)]
    files.sort(key=lambda pair: (zlib.crc32(pair[0].encode()), pair[0]))
    chunks = [files[i : i + FILES_A_CHUNK] for i in range(0, len(files), FILES_A_CHUNK)]
    workers = processes or min(4, os.cpu_count() or 1)
    if workers == 1:
        return _take(map(_chunk, chunks), limit)
    with ProcessPoolExecutor(workers) as pool:
        try:
            return _take(pool.map(_chunk, chunks), limit)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _take(chunks: Iterator[list[Docstring]], limit: int) -> list[Docstring]:
    seen: set[str] = set()
    taken: list[Docstring] = []
    for chunk in chunks:
        for docstring in chunk:
            if docstring.text not in seen:
                seen.add(docstring.text)
                taken.append(docstring)
                if len(taken) == limit:
                    return taken
    return taken
