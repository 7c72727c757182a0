"""The wheel, installed as a user would, in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "uv", "build", "--quiet", "--wheel", "--out-dir", out, ROOT], check=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="session")
def bare_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with `pip install hubscope` and nothing else."""
    home = tmp_path_factory.mktemp("bare")
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    subprocess.run([sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python, wheel], check=True)
    return python


def run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python.parent / arguments[0], *arguments[1:]], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_wheel_holds_every_root_and_the_examples(wheel: Path) -> None:
    """Nothing that works in a checkout is missing from the wheel."""
    names = zipfile.ZipFile(wheel).namelist()
    for part in ("instrumentation", "processors", "exporters", "collector", "analytics", "console", "examples"):
        assert any(n.startswith(f"hubscope/{part}/") for n in names), part
    for ending in (".sql", ".toml", "py.typed"):
        assert any(n.endswith(ending) for n in names), ending


def test_a_bare_install_brings_no_heavy_library(bare_python: Path) -> None:
    """`pip install hubscope` stays light: no Arrow, no DuckDB."""
    done = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "list", "--python", bare_python], capture_output=True, text=True, check=True
    )
    installed = {line.split()[0].lower() for line in done.stdout.splitlines()[2:]}
    assert installed & {"pyarrow", "duckdb", "deltalake", "numpy", "scipy", "rich", "uvicorn"} == set()


@pytest.mark.parametrize(("command", "extra"), [("collect", "collector"), ("report", "analytics"), ("demo", "all")])
def test_a_missing_extra_is_named(bare_python: Path, command: str, extra: str) -> None:
    """A command whose part is not installed says which pip command installs it, and leaves with 2."""
    done = run(bare_python, "hubscope", command)
    assert done.returncode == 2, done
    assert f"hubscope[{extra}]" in done.stderr
    assert "Traceback" not in done.stderr
