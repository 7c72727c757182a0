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
LAKE = {"file_lock", "lake_paths", "lake_readers", "lake_rollup", "lake_schema", "lake_values"}
MAY_IMPORT: dict[str, set[str]] = {
    "instrumentation": NAMES | {"instrumentation", "exporters.otlp", "processors.rules", "processors.sdk"},
    "processors": NAMES | {"processors", "lake_rollup", "lake_schema", "lake_values"},
    "exporters": NAMES | LAKE | {"exporters", "processors.batch"},
    "collector": NAMES | LAKE | {"collector", "processors", "exporters"},
    "analytics": NAMES | LAKE | {"analytics", "processors.rules", "processors.targets"},
    "examples": {"instrumentation"},
}


def imported(path: Path) -> Iterator[str]:
    """The modules and names of ours that a file imports, without `hubscope.`; also those imported in a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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
