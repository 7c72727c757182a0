"""Fixtures that more than one part's tests use."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is, and no test asserts that. CI tries the same examples every
# time, so that what it says is about the change; at a desk they are new ones.
settings.register_profile("hubscope", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("hubscope")

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Telemetry that a test's processes could not send waits in a folder of its own, not in the user's."""
    folder = tmp_path_factory.getbasetemp() / f"state-{next(_numbers)}"  # made when something is written there
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """`tool(name)`: the program's path. Absent, it skips the test with that reason; in CI (CI=true) it fails it."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            reason = f"{name} is not installed; tests/integration/README.md says which package has it"
            if os.environ.get("CI") == "true":
                pytest.fail(f"{reason}. CI must run this test.")
            pytest.skip(reason)
        return path

    return find


@pytest.fixture(scope="session")
def go_build(tool: Callable[[str], str]) -> Callable[..., Path]:
    """`go_build(module_dir, package, name, keep=False)`: the program `module_dir/bin/name`, built from that Go module.

    Go's own cache makes an unchanged build a matter of a second; `keep` leaves a binary alone that is newer than the
    module's go.sum, for a program whose cold build takes minutes.
    """

    def build(module_dir: Path, package: str, name: str, keep: bool = False) -> Path:
        go = tool("go")
        target = module_dir / "bin" / name
        if keep and target.exists() and target.stat().st_mtime > (module_dir / "go.sum").stat().st_mtime:
            return target
        # cgo off: no C compiler is needed, and the program runs on any Linux.
        done = subprocess.run(
            [go, "build", "-trimpath", "-ldflags=-s -w", "-o", str(target), package],
            cwd=module_dir,
            env={**os.environ, "CGO_ENABLED": "0"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"go build {package} in {module_dir} failed:\n{done.stdout}{done.stderr}"
        return target

    return build


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write the golden files instead of comparing with them"
    )
    parser.addoption("--kills", type=int, default=20, help="how often tests/collector/test_kill.py kills something")
    parser.addoption("--kill-seed", type=int, default=2, help="which moments and victims it takes")
