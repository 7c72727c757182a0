"""A command under `hubscope run`: found or refused, its signals and exit codes as a shell would have them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from hubscope.console import child
from hubscope.errors import ConfigError

Hubscope = Callable[..., Result]
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


@pytest.mark.parametrize("code", [0, 1, 3, 77])
def test_the_exit_code_is_the_programs(code: int) -> None:
    """What the program exits with is what comes back."""
    assert child.run([sys.executable, "-c", f"raise SystemExit({code})"], os.environ) == code


@posix
def test_a_program_ended_by_a_signal_is_128_plus_its_number() -> None:
    """As a shell reports it."""
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert child.run([sys.executable, "-c", code], os.environ) == 128 + signal.SIGKILL


@posix
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_signals_reach_the_program(name: str, tmp_path: Path) -> None:
    """A signal sent to us is passed on; the program handles it and its own exit code comes back."""
    program = (
        "import signal, sys, time\n"
        f"signal.signal(signal.{name}, lambda *a: sys.exit(42))\n"
        "print('ready', flush=True)\n"
        "signal.pause()\n"
    )
    ours = (
        "import os, sys\nfrom hubscope.console import child\n"
        f"sys.exit(child.run([sys.executable, '-c', {program!r}], os.environ))"
    )
    process = subprocess.Popen([sys.executable, "-c", ours], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(getattr(signal, name))
        assert process.wait(20) == 42
        process.stdout.close()
    finally:
        process.kill()
        process.wait()


def test_what_cannot_be_run_is_said(tmp_path: Path) -> None:
    """A program that is not there, a folder, and a file that is not executable are each named with a way out."""
    script = tmp_path / "app.py"
    script.write_text("print(1)")
    with pytest.raises(ConfigError, match="no command 'no-such-program' on PATH"):
        child.find(["no-such-program"])
    with pytest.raises(ConfigError, match="no command"):
        child.find([str(tmp_path / "gone")])
    with pytest.raises(ConfigError, match="is a folder"):
        child.find([str(tmp_path)])
    with pytest.raises(ConfigError, match="not an executable program") as caught:
        child.find([str(script)])
    assert "hubscope run -- python" in str(caught.value)


@posix
def test_a_broken_program_is_no_traceback(tmp_path: Path, hubscope: Hubscope) -> None:
    """An executable file that the system refuses is wrong usage, in one line."""
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF not really")
    broken.chmod(0o755)
    result = hubscope("run", "--collector", "http://127.0.0.1:9", "--", broken)
    assert result.exit_code == 2
    assert "cannot be run" in result.stderr


def test_a_missing_command_starts_nothing(hubscope: Hubscope, tmp_path: Path) -> None:
    """`hubscope run -- nonsense` exits 2 before a collector is started or a folder is made."""
    result = hubscope("run", "--lake", tmp_path / "lake", "--", "no-such-program", "--flag")
    assert result.exit_code == 2
    assert "no command 'no-such-program'" in result.stderr
    assert not (tmp_path / "lake").exists()
    assert hubscope("run", "--lake", tmp_path / "lake").exit_code == 2


@pytest.mark.parametrize("variable", ["HUBSCOPE_DISABLED", "OTEL_SDK_DISABLED"])
def test_switched_off_it_only_runs(variable: str, tmp_path: Path) -> None:
    """With measuring switched off the program runs, and no collector is started."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "hubscope.console",
            "run",
            "--lake",
            str(tmp_path / "lake"),
            "--",
            sys.executable,
            "-c",
            "exit(5)",
        ],
        env={**os.environ, variable: "true"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 5
    assert variable in done.stderr
    assert not (tmp_path / "lake").exists()


def test_a_named_endpoint_is_used(tmp_path: Path) -> None:
    """--collector reaches the program as the standard variables, and no collector is started."""
    code = "import os; print(os.environ['OTEL_EXPORTER_OTLP_ENDPOINT'], os.environ['OTEL_EXPORTER_OTLP_PROTOCOL'])"
    done = subprocess.run(
        [sys.executable, "-m", "hubscope.console", "run", "--lake", str(tmp_path / "lake"), "--collector",
         "http://127.0.0.1:9", "--", sys.executable, "-c", code],
        env={**os.environ, "HUBSCOPE_EXIT_TIMEOUT_MS": "100"},
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    assert done.stdout == "http://127.0.0.1:9 http/protobuf\n"
    assert not (tmp_path / "lake").exists()


@posix
def test_ctrl_c_in_a_terminal_arrives_once() -> None:
    """The terminal gives Ctrl-C to the program itself; not passed on a second time (servers take two as "now")."""
    import fcntl
    import pty
    import termios

    program = (
        "import signal, sys\n"
        "count = 0\n"
        "def interrupted(*a):\n"
        "    global count; count += 1; print('interrupted', flush=True)\n"
        "signal.signal(signal.SIGINT, interrupted)\n"
        "signal.signal(signal.SIGUSR1, lambda *a: sys.exit(10 + count))\n"
        "print('ready', flush=True)\n"
        "while True: signal.pause()\n"
    )
    ours = (
        "import os, sys\nfrom hubscope.console import child\n"
        f"sys.exit(child.run([sys.executable, '-c', {program!r}], os.environ))"
    )
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ours],
        stdin=terminal,
        stdout=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.write(master, b"\x03")
        assert process.stdout.readline() == b"interrupted\n"
        process.send_signal(signal.SIGUSR1)  # handled after whatever the Ctrl-C would have sent
        assert process.wait(20) == 11
        process.stdout.close()
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(terminal)
