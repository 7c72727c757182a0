"""The one direction in which data goes: what each folder's code may import, as docs/architecture.md says it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = {"semconv", "errors", "environment"}  # of hubscope, in instrumentation/: what everybody shares
# In exporters/: what those who write the lake and those who read it share.
LAKE = {"file_lock", "lake_log", "lake_paths", "lake_readers", "lake_rollup", "lake_schema", "lake_values"}
MAY_IMPORT: dict[str, set[str]] = {
    "instrumentation": NAMES
    | {"instrumentation", "exporters.delivery", "exporters.otlp", "processors.rules_file", "processors.sdk"},
    "processors": NAMES | {"processors", "lake_rollup", "lake_schema", "lake_values"},
    "exporters": NAMES | LAKE | {"exporters", "processors.batch", "processors.secret_text", "instrumentation.settings"},
    "collector": NAMES | LAKE | {"collector", "processors", "exporters"},
    "analytics": NAMES
    | LAKE
    | {"analytics", "processors.limits", "processors.rules", "processors.rules_file", "processors.targets"},
    "examples": {"instrumentation"},
}


def imported(path: Path, *, only_at_run_time: bool = False) -> Iterator[str]:
    """The modules and names of ours that a file imports, without `hubscope.`; also those imported in a function."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if only_at_run_time and id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("hubscope.") for name in names if name.startswith("hubscope."))


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_only_what_it_may(folder: str) -> None:
    """No file of the folder imports a part of hubscope that the table does not give it."""
    found = [(path, name) for path in (ROOT / folder).rglob("*.py") for name in imported(path)]
    assert found
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, name in found
        if not any(name == part or name.startswith(f"{part}.") for part in MAY_IMPORT[folder])
    ]
    assert not wrong


def test_the_front_loads_no_arrow() -> None:
    """The process that acknowledges needs neither Arrow nor the lake: nothing of theirs can stop reception."""
    code = "import sys, hubscope.collector.front; print(*sorted({'pyarrow', 'deltalake', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def modules() -> dict[str, Path]:
    """Every module of ours by its name without `hubscope.`; a package is its `__init__`."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for folder in (*MAY_IMPORT, "console")
        if (root := ROOT / folder / "hubscope").is_dir()
        for path in root.rglob("*.py")
    }


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """The sets of modules that import each other, directly or by way of others."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        found: set[str] = set()
        waiting = [*graph[start]]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(graph[name])
        reached[start] = found
    return {
        frozenset(other for other in found if name in reached[other])
        for name, found in reached.items()
        if name in found
    }


def test_modules_import_in_one_direction() -> None:
    """No module imports another that imports it; also not in a function, where a circle hides until it is called.

    A notebook asks a report itself for its HTML (`_repr_html_`): there the model reaches for what renders it.
    """
    known = modules()
    graph: dict[str, set[str]] = {}
    for module, path in known.items():
        graph[module] = set()
        for name in imported(path, only_at_run_time=True):
            while name and name not in known:
                name = name.rpartition(".")[0]
            graph[module] |= {name} - {module, ""}
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == {frozenset("abc")}  # it can fail
    found = circles(graph)
    assert len(found) == 1
    assert "analytics.model" in next(iter(found))
    assert all(name.partition(".")[0] == "analytics" for circle in found for name in circle)
    assert {name.removeprefix("analytics.").partition(".")[0] for name in next(iter(found))} == {"model", "render"}
