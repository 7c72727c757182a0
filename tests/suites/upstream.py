"""The test suites that other projects ship, plain and under `hubscope run`: ours changes nothing.

    python tests/suites/upstream.py [NAME …] [--down]

Downloads each source distribution, runs its tests twice (with `--down` the second time with nobody listening at the
endpoint), and prints a table of what passed and failed. Exit code 1 where a test's outcome differs.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
UV = (sys.executable, "-m", "uv")


class Suite(NamedTuple):
    """`tests` are arguments of pytest within the source distribution; none: a module of CPython's own."""

    name: str
    version: str
    tests: tuple[str, ...]
    needs: tuple[str, ...] = ()


SUITES: tuple[Suite, ...] = (
    Suite("test_sqlite3", "", ()),
    Suite("aiosqlite", "0.22.1", ("aiosqlite/tests/smoke.py",)),
    Suite("cachetools", "8.0.2", ("tests",)),
    Suite("diskcache", "5.6.3", ("tests/test_core.py", "tests/test_fanout.py", "-k", "not django"), ("django",)),
    Suite("pluggy", "1.7.0", ("testing", "--ignore=testing/benchmark.py")),
    Suite("stevedore", "5.10.0", ("stevedore/tests",), ("testtools", "sphinx")),
)
_CPYTHON = re.compile(r"^(\w+) \((\S+?)\).*\.\.\. (ok|FAIL|ERROR|skipped|expected failure)", re.MULTILINE)
_PYTEST = re.compile(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)", re.MULTILINE)


def unpacked(suite: Suite, folder: Path) -> Path:
    """The folder of the source distribution's files."""
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *("--no-binary=:all:", f"--dest={folder}", f"{suite.name}=={suite.version}"),
        ],
        check=True,
    )
    [archive] = folder.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    return next(path for path in folder.iterdir() if path.is_dir())


@contextlib.contextmanager
def prepared(suite: Suite) -> Iterator[tuple[tuple[str, ...], Path, Path]]:
    """The command that runs the suite, where, and the folder of the environment's programs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = folder / "env"
        subprocess.run((*UV, "venv", "--quiet", "--python", sys.executable, str(env)), check=True)
        wanted = ["pytest", "pytest-timeout", *suite.needs, "--editable", f"{ROOT}[collector]"]
        where = folder
        if suite.tests:
            (folder / "source").mkdir()
            where = unpacked(suite, folder / "source")
            wanted.insert(0, f"{suite.name}=={suite.version}")
        python = str(env / "bin" / "python")
        subprocess.run((*UV, "pip", "install", "--quiet", "--python", python, *wanted), check=True)
        command = (python, "-m", "test", "-v", suite.name)
        if suite.tests:
            # The installed package is tested, not the folder: `-P` keeps the folder off the path.
            command = (python, "-m", "pytest", "-rA", "-v", "-p", "no:cacheprovider", "-o", "addopts=", *suite.tests)
        yield command, where, env / "bin"


def outcomes(command: tuple[str, ...], where: Path, environ: dict[str, str]) -> dict[str, str]:
    """Test -> outcome."""
    done = subprocess.run(
        command, cwd=where, env=environ, capture_output=True, text=True, errors="replace", timeout=1800, check=False
    )
    output = done.stdout + done.stderr
    found = dict(_PYTEST.findall(output))
    return found or {f"{kind}.{test}": outcome for test, kind, outcome in _CPYTHON.findall(output)}


def main(arguments: list[str]) -> int:
    """Prints a row a suite and each difference; the exit code."""
    asked = [name for name in arguments if not name.startswith("-")]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "HUBSCOPE_", "PYTHON"))}
    differs = False
    print("| suite | plain: passed of all | measured: passed of all | differ |\n| --- | --- | --- | --- |", flush=True)
    for suite in SUITES:
        if asked and suite.name not in asked:
            continue
        with prepared(suite) as (command, where, programs):
            plain = outcomes(command, where, clean)
            measured_environ = {**clean, "HUBSCOPE_LAKE": str(where / "lake")}
            if "--down" in arguments:
                measured_environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
            measured = outcomes((str(programs / "hubscope"), "run", "--", *command), where, measured_environ)
        names = sorted(plain.keys() | measured.keys())
        other = [name for name in names if plain.get(name) != measured.get(name)]
        differs |= bool(other) or not plain
        good = ("PASSED", "ok")
        counts = [f"{sum(o in good for o in ran.values())} of {len(ran)}" for ran in (plain, measured)]
        print(f"| {suite.name} {suite.version} | {counts[0]} | {counts[1]} | {len(other)} |", flush=True)
        for name in other:
            print(f"  {name}: {plain.get(name)} -> {measured.get(name)}", file=sys.stderr, flush=True)
    return int(differs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
