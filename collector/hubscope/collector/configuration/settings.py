"""What the collector is told: command-line flags over a configuration file over defaults, checked as a whole.

Every key stands once, in `KEYS`, with how its text is read and its default. All problems are reported at once, each
with its path; a key that does not exist is named with the nearest one that does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from hubscope.collector.configuration import destinations, values
from hubscope.collector.configuration.addresses import DEFAULT_GRPC, DEFAULT_HTTP, DEFAULT_TELEMETRY, Address
from hubscope.collector.configuration.config_file import read_config
from hubscope.collector.configuration.contradictions import contradictions
from hubscope.collector.configuration.key import Key
from hubscope.collector.configuration.processor_keys import PROCESSOR_KEYS, TABLES
from hubscope.collector.configuration.values import MIB_BYTES
from hubscope.errors import ConfigError
from hubscope.exporters.clickhouse import ClickHouseConfig
from hubscope.exporters.forward import ForwardConfig
from hubscope.exporters.lake_policy import LakePolicy
from hubscope.processors.options import (
    AttributeLimitOptions,
    EnrichmentOptions,
    ProcessorOptions,
    RedactionOptions,
    SamplingOptions,
    from_plain,
)


@dataclass(frozen=True)
class Security:
    """Who may send. Empty strings and tuples switch a part off."""

    cert_file: str = ""  # PEM; with key_file: TLS on both receivers
    key_file: str = ""
    client_ca_file: str = ""  # PEM; mutual TLS: only clients whose certificate it signed
    bearer_tokens: tuple[str, ...] = ()  # any of them, as `authorization: Bearer …`
    cors_allowed_origins: tuple[str, ...] = ()  # browsers' origins, exactly as they send them; `*` is any
    insecure: bool = False  # binding beyond loopback without TLS or tokens is meant


@dataclass(frozen=True)
class Limits:
    """Bounds of what the front takes before it answers "later"."""

    request_size_bytes: int = 64 * MIB_BYTES  # of one request, after decompression
    memory_bytes: int = 512 * MIB_BYTES  # resident, of all processes together; 464 MiB was measured under full load
    waiting_size_bytes: int = 128 * MIB_BYTES  # of requests that wait for the disk together
    log_size_bytes: int = 2048 * MIB_BYTES  # of the write-ahead log: what a stopped worker or destination may pile up
    free_disk_bytes: int = 256 * MIB_BYTES  # left free, so that the worker can still empty the log into the lake


@dataclass(frozen=True)
class Logs:
    """How the processes tell what they do, on stderr."""

    format: str = "text"  # or json: one object a line
    level: str = "info"  # debug, info, warning or error


@dataclass(frozen=True)
class CollectorSettings:
    """Everything the collector's processes are told, and all of it."""

    lake: str  # a folder or a URL
    state_dir: str
    grpc: Address = DEFAULT_GRPC
    http: Address = DEFAULT_HTTP
    telemetry: Address = DEFAULT_TELEMETRY
    forward: tuple[ForwardConfig, ...] = ()
    clickhouse: tuple[ClickHouseConfig, ...] = ()
    rules_path: str | None = None
    flush_interval_s: float = 0.5  # age at which a segment goes to the worker: one lake transaction each
    segment_size_bytes: int = 16 * MIB_BYTES  # or its size, whichever comes first
    stop_grace_s: float = 10.0  # for the worker to empty the log at a stop; what is left waits for the next start
    stop_without_leases: bool = False  # stop when no program that started this collector is alive
    limits: Limits = Limits()
    security: Security = Security()
    logs: Logs = Logs()
    keep: LakePolicy = field(default_factory=LakePolicy)
    processors: ProcessorOptions = field(default_factory=ProcessorOptions)

    @property
    def has_only_local_senders(self) -> bool:
        """Whether both receivers listen on loopback alone."""
        return values.is_loopback(self.grpc.host) and values.is_loopback(self.http.host)

    @property
    def wal_dir(self) -> Path:
        return Path(self.state_dir) / "wal"

    def to_json(self) -> str:
        """One line that `from_json` reads back. Holds tokens and headers: for a file that only its owner reads."""
        return json.dumps(asdict(self))


def from_json(text: str) -> CollectorSettings:
    """The settings that `to_json` wrote. `@PATH` reads them from a file: a command line is visible to everybody."""
    raw = json.loads(Path(text[1:]).read_text("utf-8") if text.startswith("@") else text)
    for key in ("grpc", "http", "telemetry"):
        raw[key] = Address(*raw[key])
    for kind in destinations.KINDS:
        raw[kind.name] = tuple(destinations.from_plain(kind, config) for config in raw[kind.name])
    raw["limits"] = Limits(**raw["limits"])
    raw["keep"] = LakePolicy(**raw["keep"])
    lists = {key: tuple(value) for key, value in raw["security"].items() if isinstance(value, list)}
    raw["security"] = Security(**{**raw["security"], **lists})
    raw["logs"] = Logs(**raw["logs"])
    raw["processors"] = from_plain(raw["processors"])
    return CollectorSettings(**raw)


KEYS: Final[tuple[Key, ...]] = (
    Key("lake", values.text, "lake", "Folder or URL of the lake."),
    Key(
        "state",
        values.path,
        "state_dir",
        "Folder of the log, cursors and dead letters; beside a local lake by default.",
    ),
    Key("rules", values.existing_file, "rules_path", "TOML file that overlays the shipped KPIs and quotas."),
    Key("receivers.grpc.endpoint", values.address, "grpc", "OTLP/gRPC, 127.0.0.1:4317 by default."),
    Key("receivers.http.endpoint", values.address, "http", "OTLP/HTTP, 127.0.0.1:4318 by default."),
    Key("receivers.max_request_size", values.positive_size, "limits.request_size_bytes", "After decompression."),
    Key(
        "receivers.max_waiting_size",
        values.positive_size,
        "limits.waiting_size_bytes",
        "Requests waiting for the disk.",
    ),
    Key("receivers.tls.cert_file", values.existing_file, "security.cert_file", "PEM certificate of both receivers."),
    Key("receivers.tls.key_file", values.existing_file, "security.key_file", "Its PEM key."),
    Key("receivers.tls.client_ca_file", values.existing_file, "security.client_ca_file", "Mutual TLS."),
    Key("receivers.auth.bearer_tokens", values.tokens, "security.bearer_tokens", "Any of them lets a sender in."),
    Key(
        "receivers.auth.bearer_token_file",
        values.token_file,
        "security.file_tokens",
        "A token a line, more than one while they are exchanged; read again on SIGHUP.",
    ),
    Key("receivers.cors.allowed_origins", values.origins, "security.cors_allowed_origins", "Browsers' origins."),
    Key("receivers.insecure", values.boolean, "security.insecure", "Bind beyond loopback without TLS or tokens."),
    Key("limits.memory", values.positive_size, "limits.memory_bytes", "Of all processes; beyond it: come later."),
    Key("log.max_size", values.positive_size, "limits.log_size_bytes", "Beyond it senders are told to come later."),
    Key("log.min_free_disk", values.size, "limits.free_disk_bytes", "The same when the disk has less room than this."),
    Key("log.segment_size", values.positive_size, "segment_size_bytes", "Largest piece that the worker takes at once."),
    Key("exporters.lake.flush_interval", values.positive_duration, "flush_interval_s", "One lake transaction each."),
    Key(
        "exporters.lake.cold_after", values.duration, "keep.cold_after_s", "Age at which a day is compressed strongly."
    ),
    Key(
        "exporters.lake.cold_url",
        values.place,
        "keep.cold_url",
        "Folder or URL it then goes to; beside the rest if none.",
    ),
    Key("exporters.lake.retention", values.duration, "keep.retention_s", "Age at which a day is dropped; 0 is never."),
    Key("exporters.lake.rollup_retention", values.duration, "keep.rollup_retention_s", "The same for the rollups."),
    Key(
        "exporters.lake.max_size", values.size, "keep.max_size_bytes", "Beyond it the oldest day is dropped; 0 is none."
    ),
    Key(
        "exporters.lake.min_free_disk", values.size, "keep.min_free_disk_bytes", "With less the oldest day is dropped."
    ),
    Key("exporters.lake.reader_grace", values.duration, "keep.reader_grace_s", "Time for readers without a lease."),
    Key("telemetry.endpoint", values.address, "telemetry", "/metrics and /healthz, 127.0.0.1:8888 by default."),
    Key("logs.format", values.log_format, "logs.format", "text, or json: one object a line."),
    Key("logs.level", values.log_level, "logs.level", "debug, info, warning or error."),
    Key("shutdown.grace", values.duration, "stop_grace_s", "For the worker to empty the log at a stop."),
    *PROCESSOR_KEYS,
)
FLAGS: Final[Mapping[str, str]] = {
    "--lake": "lake",
    "--state": "state",
    "--rules": "rules",
    "--grpc": "receivers.grpc.endpoint",
    "--http": "receivers.http.endpoint",
    "--telemetry": "telemetry.endpoint",
    "--insecure": "receivers.insecure",
    "--log-format": "logs.format",
    "--log-level": "logs.level",
}


def load(
    flags: Mapping[str, Any] | None = None,
    *,
    config_path: str | None = None,
    forward: tuple[str, ...] = (),
    clickhouse: tuple[str, ...] = (),
    default_lake: str | None = None,
    stop_without_leases: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> CollectorSettings:
    """The settings from flags (keys of `FLAGS`; None is "not given"), file and defaults.

    Raises ConfigError with every problem of all of them, each beginning with its flag or its path in the file.
    """
    problems: list[str] = []
    raw = read_config(config_path, environment, problems) if config_path else {}
    given = {kind.name: _take(raw, f"exporters.{kind.name}") for kind in destinations.KINDS}
    found: dict[str, Any] = {}
    for path, value in _flatten(raw):
        key = next((k for k in KEYS if k.path == path), None)
        if key is None:
            problems.append(f"{path}: there is no such key{_nearest(path)}")
        else:
            _read(key, value, path, found, problems)
    for flag, path in FLAGS.items():
        value = (flags or {}).get(flag)
        if value is not None:
            _read(next(k for k in KEYS if k.path == path), value, flag, found, problems)
    urls = {"forward": forward, "clickhouse": clickhouse}
    for kind in destinations.KINDS:
        found[kind.name] = destinations.read(kind, given[kind.name], urls[kind.name], problems)
    settings = _build(found, default_lake, stop_without_leases, problems)
    problems.extend(contradictions(settings))
    problems.extend(destinations.contradictions(settings))
    problems.extend(_rules(settings))
    if problems:
        raise ConfigError(
            f"the collector's configuration has {len(problems)} problem{'s' * (len(problems) > 1)}:",
            "`hubscope collect --help` shows every flag; `--check` validates without starting.",
            tuple(problems),
        )
    return settings


def _rules(settings: CollectorSettings) -> list[str]:
    """What is wrong in the rules file, if one is named and can be read."""
    if settings.rules_path is None and not os.environ.get("HUBSCOPE_RULES"):
        return []
    from hubscope.processors import rules_file

    try:
        rules_file.load(settings.rules_path)
    except ConfigError as error:
        return [f"rules: {problem}" for problem in error.problems or (error.message,)]
    return []


def _read(key: Key, value: Any, where: str, found: dict[str, Any], problems: list[str]) -> None:
    try:
        found[key.field] = key.read(value)
    except ValueError as error:
        problems.append(f"{where}: {error}")


def _build(
    found: dict[str, Any],
    default_lake: str | None,
    stop_without_leases: bool,
    problems: list[str],
) -> CollectorSettings:
    """The settings from what could be read; what could not keeps its default, and stands among the problems."""
    lake = found.pop("lake", None) or default_lake or ""
    if not lake:
        problems.append("lake: must say where the lake is (--lake PATH, or HUBSCOPE_LAKE)")
    is_url = "://" in lake
    if lake and not is_url:
        lake = os.path.abspath(os.path.expanduser(lake))
        if os.path.exists(lake) and not os.path.isdir(lake):
            problems.append(f"lake: {lake} is a file; the lake is a folder")
    state_dir = found.pop("state_dir", "")
    if not state_dir:
        if is_url:
            problems.append(f"state: must be given, because the lake is a URL ({lake}): the log needs a local folder")
        state_dir = os.path.join(lake, ".state")
    groups = ("limits", "security", "logs", "keep", "redaction", "attribute_limits", "enrichment", "sampling")
    nested: dict[str, dict[str, Any]] = {group: {} for group in groups}
    plain: dict[str, Any] = {}
    for place, value in found.items():
        group, _, name = place.rpartition(".")
        (nested[group] if group else plain)[name] = value
    security = nested["security"]
    security["bearer_tokens"] = (*security.get("bearer_tokens", ()), *security.pop("file_tokens", ()))
    return replace(
        CollectorSettings(lake=lake, state_dir=state_dir),
        stop_without_leases=stop_without_leases,
        limits=Limits(**nested["limits"]),
        security=Security(**security),
        logs=Logs(**nested["logs"]),
        keep=LakePolicy(**nested["keep"]),
        processors=ProcessorOptions(
            RedactionOptions(**nested["redaction"]),
            AttributeLimitOptions(**nested["attribute_limits"]),
            EnrichmentOptions(**nested["enrichment"]),
            SamplingOptions(**nested["sampling"]),
        ),
        **plain,
    )


def _flatten(raw: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted path, value) of every leaf; a table that is empty or null says nothing, if it is one that there is."""
    leaves: list[tuple[str, Any]] = []
    for name, value in raw.items():
        path = f"{prefix}{name}"
        is_table = any(k.path.startswith(f"{path}.") for k in KEYS)
        if isinstance(value, dict) and path not in TABLES and (value or is_table):
            leaves.extend(_flatten(value, f"{path}."))
        elif value is not None or not is_table:
            leaves.append((path, value))
    return leaves


def _take(raw: dict[str, Any], path: str) -> Any:
    """Remove and return what stands at a dotted path; None where nothing does."""
    *tables, last = path.split(".")
    node: Any = raw
    for name in tables:
        node = node.get(name) if isinstance(node, dict) else None
    return node.pop(last, None) if isinstance(node, dict) else None


def _nearest(path: str) -> str:
    known = [k.path for k in KEYS] + [f"exporters.{kind.name}" for kind in destinations.KINDS]
    near = get_close_matches(path, known, n=1, cutoff=0.5) or [
        k for k in known if k.rpartition(".")[2] == path.rpartition(".")[2]
    ]
    return f"; did you mean {near[0]}?" if near else f"; the keys are {', '.join(known)}"
