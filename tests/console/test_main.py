"""The command group: what it lists, how fast it stays, and how an error reaches a person."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result

from hubscope.console.main import COMMANDS, main
from hubscope.errors import BadInputError, ConfigError, LakeError, RetryableError

Hubscope = Callable[..., Result]
HEAVY = (
    "duckdb",
    "pyarrow",
    "deltalake",
    "numpy",
    "scipy",
    "jinja2",
    "rich",
    "grpc",
    "opentelemetry",
    "psutil",
    "platformdirs",
)


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    """`hubscope --help` names each command of the tuple, and no command, library or OpenTelemetry module is loaded."""
    code = (
        "import sys\nfrom hubscope.console.main import main\n"
        "try: main(['--help'], prog_name='hubscope')\n"
        "except SystemExit: pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], [m for m in sys.modules if 'console.commands.' in m])"
    )
    done = python(code)
    assert done.stdout.splitlines()[-1] == "[] []"
    for entry in COMMANDS:
        assert f"  {entry.name} " in done.stdout


@pytest.mark.parametrize("name", [entry.name for entry in COMMANDS])
def test_every_command_helps_with_an_example(name: str, hubscope: Hubscope) -> None:
    """Each command's --help explains it, explains every option, and shows an example that names the command."""
    result = hubscope(name, "--help")
    assert result.exit_code == 0, result.output
    assert f"hubscope {name}" in result.output.partition("\n")[2], "no example"
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts} says nothing"


def test_the_version_is_the_packages(hubscope: Hubscope) -> None:
    """`--version` prints the installed version."""
    from importlib.metadata import version

    assert hubscope("--version").output == f"hubscope {version('hubscope')}\n"


def test_an_unknown_command_is_answered_with_the_nearest(hubscope: Hubscope) -> None:
    """A misspelt command is wrong usage (2), and the one that was meant is named."""
    result = hubscope("reprot")
    assert result.exit_code == 2
    assert "Did you mean 'report'?" in result.stderr
    assert "Did you mean" not in hubscope("xyzzy").stderr


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def callback() -> None:
        raise error

    monkeypatch.setattr(main, "get_command", lambda ctx, name: click.Command(name, callback=callback))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("wrong setting", "set it right"), 2),
        (BadInputError("bad file", "send another"), 4),
        (LakeError("no lake", "make one"), 4),
        (RetryableError("busy", "try again"), 4),
    ],
)
def test_our_errors_are_message_remedy_and_exit_code(
    error: Exception, code: int, hubscope: Hubscope, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A HubscopeError is printed with its remedy on stderr, without a traceback, and exits as the table says."""
    raising(error, monkeypatch)
    result = hubscope("report")
    assert result.exit_code == code
    assert str(error) in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_several_problems_are_all_said(hubscope: Hubscope, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ConfigError's problems each get a line."""
    raising(ConfigError("the configuration is wrong", problems=("a: must be > 0", "b: unknown")), monkeypatch)
    assert "  a: must be > 0\n  b: unknown" in hubscope("report").stderr


def test_a_bug_is_one_message_and_70(hubscope: Hubscope, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception asks for a report without a traceback; HUBSCOPE_DEBUG=1 adds the traceback."""
    raising(ValueError("off by\none"), monkeypatch)
    result = hubscope("report")
    assert result.exit_code == 70
    assert "ValueError: off by one" in result.stderr
    assert "HUBSCOPE_DEBUG=1" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in hubscope("report", env={"HUBSCOPE_DEBUG": "1"}).stderr


def test_an_interrupt_is_130(hubscope: Hubscope, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during a command exits 130, without a traceback."""
    raising(KeyboardInterrupt(), monkeypatch)
    result = hubscope("report")
    assert result.exit_code == 130
    assert "Traceback" not in result.stderr


def test_a_closed_pipe_is_quiet() -> None:
    """`hubscope … | head` with a reader that has gone says nothing and ends as other tools do (128 + SIGPIPE)."""
    code = (
        "import os, sys, click\nfrom hubscope.console.main import main\n"
        "def write():\n    for _ in range(9999): click.echo('x' * 99)\n"
        "main.get_command = lambda ctx, name: click.Command(name, callback=write)\n"
        "main(['report'], prog_name='hubscope')"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(30) == 141
    process.stderr.close()


def test_the_collector_reads_the_configuration_that_the_environment_names(hubscope: Hubscope, tmp_path: Path) -> None:
    """`hubscope collect` takes HUBSCOPE_CONFIG where no --config is given, and --config where both are."""
    (tmp_path / "wrong.toml").write_text("lakes = 1\n")
    (tmp_path / "good.toml").write_text("# nothing is set\n")
    named = {"HUBSCOPE_CONFIG": str(tmp_path / "wrong.toml")}
    by_environment = hubscope("collect", "--check", "--lake", tmp_path / "lake", env=named)
    assert by_environment.exit_code == 2
    assert "lakes: there is no such key" in by_environment.stderr
    by_flag = hubscope("collect", "--check", "--lake", tmp_path / "lake", "--config", tmp_path / "good.toml", env=named)
    assert by_flag.exit_code == 0, by_flag.stderr


@pytest.mark.parametrize(
    ("arguments", "module", "extra"),
    [
        (["report"], "duckdb", "analytics"),
        (["report"], "deltalake", "analytics"),
        (["status"], "duckdb", "analytics"),
        (["sql", "SELECT 1"], "duckdb", "analytics"),
        (["trace", "ab"], "duckdb", "analytics"),
    ],
)
def test_a_missing_extra_is_named(arguments: list[str], module: str, extra: str, tmp_path: object) -> None:
    """With a library of an extra not installed, a command says what to install and exits 2."""
    code = (
        f"import sys\nsys.modules[{module!r}] = None\n"
        "from hubscope.console.main import main\nmain(sys.argv[1:], prog_name='hubscope')"
    )
    done = python(code, *arguments, "--lake", str(tmp_path))
    assert done.returncode == 2, done.stderr
    assert f"pip install 'hubscope[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_colour_only_on_a_terminal(hubscope: Hubscope) -> None:
    """Nothing that goes to a pipe holds an escape sequence."""
    result = hubscope("reprot")
    assert "\033" not in result.output
    assert "\033" not in hubscope("doctor", "--lake", "/nonexistent/lake").output


def test_a_terminal_without_unicode_is_no_error() -> None:
    """Where stdout cannot say a sign, it says "?" and goes on."""
    done = subprocess.run(
        [sys.executable, "-m", "hubscope.console", "doctor", "--lake", "/nonexistent/lake"],
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        timeout=60,
    )
    assert b"? python" in done.stdout
    assert b"bug" not in done.stderr
