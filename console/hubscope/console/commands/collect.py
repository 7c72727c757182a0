"""`hubscope collect`: the collector in the foreground."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from hubscope.console.options import LAKE_ENV, default_lake, example, rules_option

if TYPE_CHECKING:
    from hubscope.collector.configuration.settings import CollectorSettings


@click.command(
    "collect",
    epilog=example(
        "hubscope collect",
        "hubscope collect --forward http://127.0.0.1:14317      # and pass everything on to Jaeger",
        "hubscope collect --config collector.yaml --check",
    ),
)
@click.option("--grpc", metavar="HOST:PORT", help="OTLP/gRPC.  [default: 127.0.0.1:4317]")
@click.option("--http", metavar="HOST:PORT", help="OTLP/HTTP, protobuf and JSON.  [default: 127.0.0.1:4318]")
@click.option("--telemetry", metavar="HOST:PORT", help="/metrics and /healthz.  [default: 127.0.0.1:8888]")
@click.option(
    "--forward",
    metavar="URL",
    multiple=True,
    help="Pass everything on to this OTLP endpoint: http(s)://host:4317 or grpc:// is gRPC, any other URL OTLP/HTTP. "
    "May be repeated.",
)
@click.option(
    "--clickhouse",
    metavar="URL",
    multiple=True,
    help="Insert every row into this ClickHouse too, at the URL of its HTTP interface. May be repeated. "
    "A user and a password go into the configuration file.",
)
@click.option(
    "--lake",
    envvar=LAKE_ENV,
    metavar="PATH",
    help=f"Where the lake is (or {LAKE_ENV}).  [default: hubscope/lake in your user data folder]",
)
@click.option("--state", metavar="DIR", help="Where the log and the cursors are.  [default: .state in the lake]")
@rules_option
@click.option(
    "--config",
    envvar="HUBSCOPE_CONFIG",
    metavar="FILE",
    help="Configuration file, YAML or TOML (or HUBSCOPE_CONFIG). Flags win over it.",
)
@click.option("--check", is_flag=True, help="Validate the configuration, print every error, and leave.")
@click.option(
    "--insecure", is_flag=True, help="Listen beyond this machine without TLS or tokens: say that it is meant."
)
@click.option("--log-format", type=click.Choice(("text", "json")), help="How it tells what it does.  [default: text]")
@click.option(
    "--log-level", type=click.Choice(("debug", "info", "warning", "error")), help="And how much.  [default: info]"
)
@click.option("--stop-without-leases", is_flag=True, hidden=True, help="Leave with the programs it was started for.")
def command(
    grpc: str | None,
    http: str | None,
    telemetry: str | None,
    forward: tuple[str, ...],
    clickhouse: tuple[str, ...],
    lake: str | None,
    state: str | None,
    rules: str | None,
    config: str | None,
    check: bool,
    insecure: bool,
    log_format: str | None,
    log_level: str | None,
    stop_without_leases: bool,
) -> int:
    """Receive OTLP over gRPC and HTTP, and keep it in the lake.

    What is acknowledged is on disk and survives any crash; it can be queried within two seconds. Ctrl-C stops cleanly,
    a second one at once; nothing is lost either way. SIGHUP reads the configuration again, while it goes on.
    """
    signal.signal(signal.SIGTERM, _leave)  # until the collector handles it: its imports take a second
    from hubscope.collector.configuration import settings as collector_settings

    flags: dict[str, Any] = {
        "--grpc": grpc,
        "--http": http,
        "--telemetry": telemetry,
        "--lake": lake,
        "--state": state,
        "--rules": rules,
        "--insecure": insecure or None,
        "--log-format": log_format,
        "--log-level": log_level,
    }

    def load() -> CollectorSettings:
        return collector_settings.load(
            flags,
            config_path=config,
            forward=forward,
            clickhouse=clickhouse,
            default_lake=default_lake(),
            stop_without_leases=stop_without_leases,
        )

    settings = load()
    if check:
        click.echo("the configuration is good", err=True)
        return 0
    import_everything()
    from hubscope.collector import supervisor

    return supervisor.run(settings, load)


def import_everything() -> None:
    """Raises ModuleNotFoundError for what is not installed, here, where it becomes the name of the missing extra."""
    from importlib import import_module
    from importlib.util import find_spec

    for name in (
        "grpc",
        "uvicorn",
        "httptools",
        "numpy",
        "google.protobuf",
        "ptars",
        "pyarrow",
        "deltalake",
        "zstandard",
    ):
        if find_spec(name.partition(".")[0]) is None:
            import_module(name)


def _leave(number: int, frame: FrameType | None) -> None:
    """A stop before anything was started is a stop like any other."""
    sys.exit(0)
