"""`hubscope run -- CMD`: the program as it is, with instrumentation on and somewhere to send to."""

from __future__ import annotations

import hashlib
import os
import signal
from contextlib import ExitStack
from pathlib import Path

import click
from click.core import ParameterSource

from hubscope.collector.configuration import values
from hubscope.collector.configuration.addresses import DEFAULT_GRPC, DEFAULT_HTTP, DEFAULT_TELEMETRY, Address
from hubscope.console import child, local_collector, terminal
from hubscope.console.local_collector import Destination, Wanted
from hubscope.console.options import example, lake_option, state_dir


def _address(ctx: click.Context, param: click.Parameter, value: str) -> Address:
    try:
        return values.address(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def _named(ctx: click.Context) -> tuple[str, ...]:
    """The flags of addresses that the user gave; the others are defaults that nobody asked for."""
    flags = ("grpc", "http", "telemetry")
    return tuple(flag for flag in flags if ctx.get_parameter_source(flag) is not ParameterSource.DEFAULT)


@click.command(
    "run",
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
    epilog=example(
        "hubscope run -- datasette serve data.db",
        "hubscope run --service my-hub --version 1.4.0 -- python -m my_hub",
        "hubscope run --collector http://localhost:4318 -- python app.py",
    ),
)
@click.argument("cmd", nargs=-1, type=click.UNPROCESSED, metavar="-- CMD …")
@click.option("--service", metavar="NAME", help="The service's name (service.name).  [default: taken from CMD]")
@click.option("--version", metavar="VERSION", help="Its version (service.version): what `hubscope compare` groups by.")
@click.option("--collector", metavar="URL", help="Send to this OTLP endpoint instead, and start no collector.")
@lake_option
@click.option(
    "--grpc",
    default=str(DEFAULT_GRPC),
    show_default=True,
    callback=_address,
    metavar="HOST:PORT",
    help="Where a collector is looked for, or started: OTLP/gRPC.",
)
@click.option(
    "--http",
    default=str(DEFAULT_HTTP),
    show_default=True,
    callback=_address,
    metavar="HOST:PORT",
    help="The same for OTLP/HTTP.",
)
@click.option(
    "--telemetry",
    default=str(DEFAULT_TELEMETRY),
    show_default=True,
    callback=_address,
    metavar="HOST:PORT",
    help="/metrics and /healthz of a collector that is started; any free port where this one is taken.",
)
@click.pass_context
def command(
    ctx: click.Context,
    cmd: tuple[str, ...],
    service: str | None,
    version: str | None,
    collector: str | None,
    lake: str,
    grpc: Address,
    http: Address,
    telemetry: Address,
) -> int:
    """Runs CMD with instrumentation on, as it is: nothing in it changes. Signals and its exit code are passed through.

    Where no OTEL_EXPORTER_OTLP_ENDPOINT is set and nothing listens, a local collector is started that writes the lake
    and stops when CMD has ended. One that writes another lake is left alone: this one then takes free ports.
    """
    if not cmd:
        raise click.UsageError("Say what to run after `--`: hubscope run -- python app.py")
    from hubscope.instrumentation import settings
    from hubscope.instrumentation.launch import prepare_environment

    child.find(cmd)  # before anything is started
    with ExitStack() as stack:
        if settings.disabled():
            destination = Destination("nothing is recorded: HUBSCOPE_DISABLED or OTEL_SDK_DISABLED is set")
        elif collector is not None:
            destination = Destination(f"sending to {collector}", collector)
        elif named := local_collector.named_endpoint(os.environ):
            destination = Destination(f"sending to {named}, as the environment says")
        else:
            is_lake_named = ctx.get_parameter_source("lake") is not ParameterSource.DEFAULT
            destination = _local(stack, lake, Wanted(grpc, http, telemetry, _named(ctx), is_lake_named))
        environment = prepare_environment(
            os.environ,
            service=service,
            version=version,
            endpoint=destination.endpoint,
            protocol=destination.protocol,
            command=cmd,
        )
        terminal.say(f"hubscope: {destination.note}")
        before = local_collector.stored_segment(destination.state) if destination.state else 0
        code = child.run(cmd, environment)
        if destination.state is not None:
            from hubscope.exporters.delivery.courier import send_what_waits

            send_what_waits(environment)  # what it left at os._exit: at the next start this collector is gone
            _settle(destination.state, lake, before, code)
    return code


def _local(stack: ExitStack, lake: str, wanted: Wanted) -> Destination:
    local_collector.check_lake(lake)
    state = state_dir(lake) or _state_of_url(lake)
    found = local_collector.find(lake, state, wanted)
    if found is not None and found.state is None:
        return found
    stack.enter_context(local_collector.lease(state))
    found = local_collector.find(lake, state, wanted)  # again: one that was about to leave may have left
    if found is not None:
        return found
    with terminal.working("starting a collector"):
        return local_collector.start(lake, state, wanted)


def _state_of_url(lake: str) -> Path:
    """The collector's own folder for a lake that is not on this machine."""
    import platformdirs

    digest = hashlib.sha256(lake.encode()).hexdigest()[:16]
    return Path(platformdirs.user_state_dir("hubscope", appauthor=False)) / digest


def _unsent(code: int) -> str:
    """Why a program may have sent nothing, and the remedy, as two lines. `code`: how it ended, as a shell says it."""
    try:
        ended_by = signal.Signals(code - 128).name if code > 128 else ""
    except ValueError:
        ended_by = ""
    if ended_by:
        why = f": {ended_by} ended the program before it could send, and what it had measured since then is lost"
    else:
        why = ": nothing came from the program. Either nothing in it is measured, or it left by os.exec* before it"
        why += " could send, and what it had measured is lost"
    return f"{why}\n  it sends every second and when it ends; call hub.flush() before it leaves in another way"


def _settle(state: Path, lake: str, before: int, code: int) -> None:
    """Waits until what was sent can be queried, then says what to do next, or why there is nothing to look at."""
    with terminal.working("writing the rest"):
        done = local_collector.wait_until_queryable(state)
    is_stored = local_collector.stored_segment(state) > before
    reason = local_collector.trouble(state) if not done or not is_stored else ""
    because = f": {reason}" if reason else ""
    if not done:
        terminal.say(
            f"hubscope: not everything is in the lake yet{because}\n  what was accepted waits in {state / 'wal'}, "
            f"to be written when it can be; `hubscope doctor --lake {lake}` says what waits"
        )
    elif not is_stored:
        why = f"{because}\n  hubscope doctor --lake {lake}" if reason else _unsent(code)
        terminal.say(f"hubscope: nothing of this run was stored{why}")
    if not is_stored:
        return
    from hubscope.console.options import LAKE_ENV, default_lake

    is_usual = lake in (default_lake(), os.environ.get(LAKE_ENV))
    terminal.say("hubscope: next, see what was found: hubscope report" + ("" if is_usual else f" --lake {lake}"))
