"""The house: one namespace package made of six roots, light where an application imports it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import hubscope

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOTS: list[str] = PYPROJECT["tool"]["hatch"]["build"]["dev-mode-dirs"]


def test_no_root_makes_the_namespace_a_regular_package() -> None:
    """A stray __init__.py in a root would hide the other five, while mypy stays green."""
    assert [root for root in ROOTS if (ROOT / root / "hubscope" / "__init__.py").exists()] == []


def test_every_root_is_part_of_the_installed_namespace() -> None:
    """An editable install takes all roots, not the first one only."""
    assert {Path(p) for p in hubscope.__path__} >= {ROOT / root / "hubscope" for root in ROOTS}


def test_the_wheel_and_the_tools_know_the_same_roots() -> None:
    """A root that is added in one list and forgotten in another is found here."""
    tool = PYPROJECT["tool"]
    assert tool["hatch"]["build"]["targets"]["wheel"]["packages"] == [f"{root}/hubscope" for root in ROOTS]
    assert tool["mypy"]["mypy_path"].split(":") == ROOTS
    assert tool["ruff"]["src"] == ROOTS


@pytest.mark.parametrize("module", ["hubscope.instrumentation", "hubscope.console.main", "hubscope.processors.rules"])
def test_what_an_application_imports_stays_light(module: str) -> None:
    """Neither Arrow nor DuckDB nor a numeric library is imported for an application that is only measured."""
    heavy = {"pyarrow", "duckdb", "deltalake", "numpy", "scipy", "jinja2", "rich", "uvicorn"}
    code = f"import sys, {module}; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_collector_extra_holds_what_the_collector_imports() -> None:
    """Each module that the collector's code imports comes with `hubscope[collector]`: here an import of all of it
    finds the others through the other extras, and a user's does not."""
    comes_from = {"google": "protobuf", "grpc": "grpcio", "yaml": "pyyaml", "opentelemetry": "opentelemetry"}
    # The first two are of an extra of their own, asked for where it is configured; the others come with the stock OTLP
    # exporters, and are asked for by the application's exporter where they are there.
    optional = {"clickhouse_connect", "urllib3", "certifi", "requests"}
    imported: set[str] = set()
    for path in [p for root in ("collector", "exporters", "processors") for p in (ROOT / root).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    project = PYPROJECT["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["collector"]]
    names = {re.split(r"[^\w.-]", text)[0] for text in declared} | {"opentelemetry"}
    third = imported - set(sys.stdlib_module_names) - optional - {"hubscope"}
    assert "numpy" in third
    assert sorted(module for module in third if comes_from.get(module, module) not in names) == []


def test_the_lock_names_no_registry_and_hashes_everything() -> None:
    """The lock file installs from whatever index the machine is set to, and only what was locked."""
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    pins = [line for line in lock.splitlines() if "==" in line and not line.lstrip().startswith("#")]
    assert pins
    assert all(line.rstrip().endswith("\\") for line in pins), "a pin without its hashes"


def test_the_lock_holds_every_declared_dependency() -> None:
    """pyproject.toml and requirements.lock agree; `make lock` renews the second."""
    lock = (ROOT / "requirements.lock").read_text()
    locked = {line.split("==")[0].strip().lower() for line in lock.splitlines() if "==" in line and line[0].isalnum()}
    project = PYPROJECT["project"]
    declared = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    declared += PYPROJECT["dependency-groups"]["dev"]
    names = {d.split(">=")[0].split("[")[0].split(",")[0].strip().lower() for d in declared} - {"hubscope"}
    assert names - locked == set()
