"""The `hubscope` command: a click group that loads each command only when it is called.

`hubscope --help` reads the tuple below and imports nothing else: it answers as fast as the interpreter and click start.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

import click

from hubscope.errors import EXIT_INTERRUPTED, HubscopeError, LakeError, MissingExtraError, status_of


class CommandEntry(NamedTuple):
    """One command: its module is `hubscope.console.commands.<module>` and holds the object `command`."""

    name: str
    module: str
    extra: str  # the extra that a missing module of this command belongs to; "" where the base install is enough
    brief: str


# The order is the order of `hubscope --help`: what a newcomer needs first stands first.
COMMANDS: tuple[CommandEntry, ...] = (
    CommandEntry("demo", "demo", "all", "Real applications under load and their report, in a minute."),
    CommandEntry("run", "run", "collector", "Run a command with instrumentation on."),
    CommandEntry("report", "report", "analytics", "What is slow, what to do about it, and what that would save."),
    CommandEntry("compare", "compare", "analytics", "Two versions, or two groups of runs, side by side."),
    CommandEntry("trace", "trace", "analytics", "One trace as a tree, with its critical path."),
    CommandEntry("sql", "sql", "analytics", "SQL over the lake, or one of the shipped queries."),
    CommandEntry("notebook", "notebook", "analytics", "Write the analysis notebook, bound to this lake."),
    CommandEntry("collect", "collect", "collector", "The collector, in the foreground."),
    CommandEntry("import", "import_", "collector", "Read OTLP and Jaeger files into the lake."),
    CommandEntry("status", "status", "analytics", "What is in the lake, how fresh, and how large."),
    CommandEntry("doctor", "doctor", "", "What is wrong with this set-up, and how to mend it."),
)

DEBUG_ENV = "HUBSCOPE_DEBUG"


class LazyGroup(click.Group):
    """A group over `COMMANDS`, and the one place where an error becomes a message and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [entry.name for entry in COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = next((entry for entry in COMMANDS if entry.name == cmd_name), None)
        if entry is None:
            return None
        try:
            module = import_module(f"hubscope.console.commands.{entry.module}")
        except ModuleNotFoundError as error:
            raise missing_extra(error, cmd_name) or error from error
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(entry.name, entry.brief) for entry in COMMANDS])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.list_commands(ctx) and not name.startswith("-"):
            raise click.UsageError(unknown_command(name), ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; an `int` that it returns is the exit code."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except (click.ClickException, click.exceptions.Exit):
            raise
        except (KeyboardInterrupt, click.Abort):
            _interrupted(ctx)
        except BrokenPipeError:
            _leave_closed_pipe()
            ctx.exit(128 + signal.SIGPIPE if hasattr(signal, "SIGPIPE") else 0)
        except Exception as error:  # noqa: BLE001 - the outermost boundary: a traceback is no answer
            if type(error).__name__ == "InterruptException":  # DuckDB's word for Ctrl-C during a query
                _interrupted(ctx)
            ctx.exit(_explain(error, ctx.invoked_subcommand or ""))
        if isinstance(result, int) and result:
            ctx.exit(result)
        return result


def _interrupted(ctx: click.Context) -> NoReturn:
    click.echo("interrupted", err=True)
    ctx.exit(EXIT_INTERRUPTED)


def unknown_command(name: str) -> str:
    """The message for a command that does not exist, with the nearest that does."""
    from difflib import get_close_matches

    near = get_close_matches(name, [entry.name for entry in COMMANDS], n=1, cutoff=0.5)
    return f"there is no command {name!r}." + (f" Did you mean {near[0]!r}?" if near else "")


def _explain(error: Exception, command_name: str) -> int:
    """Says on stderr what went wrong and what to do; returns the exit code."""
    if os.environ.get(DEBUG_ENV):
        import traceback

        traceback.print_exc()
    if isinstance(error, ModuleNotFoundError):
        missing = missing_extra(error, command_name)
        if missing is not None:
            error = missing
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f"{error.filename}: " if error.filename else ""
        error = LakeError(f"{place}{error.strerror}", "make room, and run the same command again")
    if isinstance(error, HubscopeError):
        show_error(str(error))
    else:
        show_error(
            f"{' '.join(('hubscope', command_name)).strip()} failed, and that is a bug: "
            f"{type(error).__name__}: {_one_line(error)}\n"
            f"  Please report it with the output of the same command under {DEBUG_ENV}=1, which adds the traceback."
        )
    return status_of(error).exit_code


def missing_extra(error: ModuleNotFoundError, command_name: str) -> MissingExtraError | None:
    """The extra to install for a module that `command_name` did not find; None where the module is our own."""
    module = (error.name or "").partition(".")[0]
    extra = next((entry.extra for entry in COMMANDS if entry.name == command_name), "")
    if not extra or not module or module == "hubscope":
        return None
    return MissingExtraError(f"`hubscope {command_name}` (module {module})", extra)


def show_error(text: str) -> None:
    """One error on stderr: the first line marked, the remedy below it as it is."""
    click.echo(click.style("error: ", fg="red", bold=True) + text, err=True)


def _one_line(error: Exception, limit: int = 300) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _leave_closed_pipe() -> None:
    """Points stdout at nothing, so that the interpreter's own flush at exit has no pipe left to complain about."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with `hubscope demo`; then your own: `hubscope run -- python app.py` and `hubscope report`.",
)
@click.version_option(package_name="hubscope", prog_name="hubscope", message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """What is slow in your AI hub, what to do about it, what that would save, and afterwards whether it did.

    Everything stays on this machine unless you say otherwise.
    """
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show "✓" gets "?", not an error
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="replace")
