"""The exporters beside the lake, as the configuration file names them: `exporters.<kind>`, a list, a table or a URL.

Each kind stands once, in `KINDS`, with its keys and the class that delivers to it. To add one: its source and its test,
a line there, and a field of CollectorSettings by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from hubscope.collector.configuration import values
from hubscope.exporters.base import Bound, Destination
from hubscope.exporters.clickhouse import ClickHouseConfig, ClickHouseExporter
from hubscope.exporters.forward import ForwardConfig, ForwardExporter, is_encrypted, is_grpc
from hubscope.exporters.tls import Tls, ssl_context

if TYPE_CHECKING:  # settings imports this module
    from hubscope.collector.configuration.settings import CollectorSettings


class DestinationConfig(Protocol):
    """What every kind's settings hold."""

    @property
    def name(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def tls(self) -> Tls: ...
    @property
    def bound(self) -> Bound: ...


class DestinationKey(NamedTuple):
    """One key of a destination. `field` is of its settings, or `tls.…`, `bound.…`."""

    path: str
    read: Callable[[Any], Any]
    field: str
    brief: str


class Kind(NamedTuple):
    """One kind of destination. `make(config, writer_id)` is called by the worker; it may import Arrow then."""

    name: str  # the key below `exporters`, the flag, the field of CollectorSettings
    config: Callable[..., DestinationConfig]
    make: Callable[[Any, str], Destination]
    keys: tuple[DestinationKey, ...]
    check: Callable[[Any], Iterator[tuple[str, str]]]  # (key, problem) of what is wrong only in combination
    needs: str = ""  # a module that comes with the extra of the kind's name


_COMMON: Final = (
    DestinationKey("name", values.text, "name", "What its metrics and log lines call it; from the URL by default."),
    DestinationKey("timeout", values.positive_duration, "timeout_s", "Of one request with its answer, 10s by default."),
    DestinationKey("tls.ca_file", values.existing_file, "tls.ca_file", "PEM; the system's roots by default."),
    DestinationKey("tls.cert_file", values.existing_file, "tls.cert_file", "PEM certificate of ours: mutual TLS."),
    DestinationKey("tls.key_file", values.existing_file, "tls.key_file", "Its PEM key."),
    DestinationKey("tls.insecure_skip_verify", values.boolean, "tls.insecure_skip_verify", "Trust whoever answers."),
    DestinationKey("max_backlog", values.positive_size, "bound.size_bytes", "Half of log.max_size by default."),
    DestinationKey("max_age", values.positive_duration, "bound.age_s", "Older is dropped while it fails; 24h."),
)


def _forward_problems(config: ForwardConfig) -> Iterator[tuple[str, str]]:
    if config.compression == "zstd" and is_grpc(config.url):
        yield "compression", "gRPC has gzip and none; zstd is for OTLP/HTTP"


KINDS: Final[tuple[Kind, ...]] = (
    Kind(
        "forward",
        ForwardConfig,
        lambda config, _: ForwardExporter(config),
        (
            DestinationKey("url", values.otlp_url, "url", "http(s)://host:4317 is gRPC, other URLs OTLP/HTTP."),
            DestinationKey("headers", values.headers, "headers", "Sent with every request, told to nobody."),
            DestinationKey("sampled", values.boolean, "sampled", "Only what sampling keeps, when it decides."),
            DestinationKey("enriched", values.boolean, "enriched", "With the attributes that enrichment adds."),
            DestinationKey("compression", values.one_of("gzip", "zstd", "none"), "compression", "gzip by default."),
            *_COMMON,
        ),
        _forward_problems,
    ),
    Kind(
        "clickhouse",
        ClickHouseConfig,
        ClickHouseExporter,
        (
            DestinationKey(
                "url", values.http_url, "url", "Of the HTTP interface: http://host:8123, https://host:8443."
            ),
            DestinationKey("database", values.text, "database", "`default` by default."),
            DestinationKey("username", values.text, "username", "`default` by default."),
            DestinationKey("password", values.secret, "password", "Best as ${env:NAME}; told to nobody."),
            DestinationKey("create_schema", values.boolean, "create_schema", "Make absent tables; true by default."),
            DestinationKey("engine", values.engine, "engine", "Of tables made here; MergeTree by default."),
            DestinationKey("ttl", values.duration, "ttl_s", "Of rows in tables made here; for ever by default."),
            *_COMMON,
        ),
        lambda _: iter(()),
        needs="clickhouse_connect",
    ),
)


def read(kind: Kind, raw: Any, urls: tuple[str, ...], problems: list[str]) -> tuple[DestinationConfig, ...]:
    """The destinations of one kind, from the file's value and the flag's URLs; what is wrong goes to `problems`."""
    path = f"exporters.{kind.name}"
    found: list[DestinationConfig] = []
    entries = raw if isinstance(raw, list) else [] if raw is None else [raw]
    for index, entry in enumerate(entries):
        place = f"{path}[{index}]" if isinstance(raw, list) else path
        entry = {"url": entry} if isinstance(entry, str) else entry
        if isinstance(entry, dict):
            found += _one(kind, entry, place, problems)
        else:
            problems.append(f"{place}: must be a URL or a table with url, got {values.shown(entry)}")
    url_key = next(key for key in kind.keys if key.path == "url")
    for url in urls:
        try:
            found.append(kind.config(name=default_name(kind, url_key.read(url)), url=url))
        except ValueError as error:
            problems.append(f"--{kind.name}: {error}")
    return tuple(found)


def from_plain(kind: Kind, raw: Mapping[str, Any]) -> DestinationConfig:
    """The settings that `dataclasses.asdict` took apart and JSON made lists of tuples of."""
    parts: dict[str, Any] = {"tls": Tls(**raw["tls"]), "bound": Bound(**raw["bound"])}
    if "headers" in raw:
        parts["headers"] = tuple((name, value) for name, value in raw["headers"])
    return kind.config(**{**raw, **parts})


def default_name(kind: Kind, url: str) -> str:
    """The name of a destination that was given none: what its cursor, its metrics and its log lines are called."""
    parts = urlsplit(url)
    path = parts.path.strip("/").replace("/", "-")
    scheme = "otlp" if kind.name == "forward" else kind.name
    return f"{scheme}-{parts.hostname}-{parts.port or 'default'}" + (f"-{path}" if path else "")


def all_of(settings: CollectorSettings) -> Iterator[tuple[Kind, DestinationConfig]]:
    """Every destination beside the lake, in the order of `KINDS`."""
    for kind in KINDS:
        for config in getattr(settings, kind.name):
            yield kind, config


def contradictions(settings: CollectorSettings) -> Iterator[str]:
    """What is wrong with destinations together, or beside the rest of the settings."""
    for kind in KINDS:
        if kind.needs and getattr(settings, kind.name) and find_spec(kind.needs) is None:
            yield f"exporters.{kind.name}: is not installed; pip install 'hubscope[{kind.name}]'"
    names = ["lake", *(config.name for _, config in all_of(settings))]
    for kind, config in all_of(settings):
        path = f"exporters.{kind.name}"
        if names.count(config.name) > 1:
            yield f"{path}: the name {config.name!r} stands {names.count(config.name)} times; each needs its own"
            names = [name for name in names if name != config.name]
        if config.bound.size_bytes > settings.limits.log_size_bytes:
            yield (
                f"{path}: max_backlog of {config.name} must be at most log.max_size "
                f"({settings.limits.log_size_bytes} B), got {config.bound.size_bytes} B"
            )


def _one(kind: Kind, entry: dict[str, Any], place: str, problems: list[str]) -> list[DestinationConfig]:
    known = {key.path: key for key in kind.keys}
    flat: dict[str, Any] = {}
    for name, value in entry.items():
        nested = isinstance(value, dict) and name not in known
        flat.update({f"{name}.{inner}": v for inner, v in value.items()} if nested else {str(name): value})
    read: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {"tls": {}, "bound": {}}
    before = len(problems)
    for name, value in flat.items():
        key = known.get(name)
        if key is None:
            near = get_close_matches(name, known, n=1, cutoff=0.5)
            problems.append(f"{place}.{name}: there is no such key" + (f"; did you mean {near[0]}?" if near else ""))
            continue
        group, _, inner = key.field.rpartition(".")
        try:
            (groups[group] if group else read)[inner] = key.read(value)
        except ValueError as error:
            problems.append(f"{place}.{name}: {error}")
    if "url" not in flat:
        problems.append(f"{place}.url: must be given")
    if "url" not in read:
        return []
    read.setdefault("name", default_name(kind, read["url"]))
    config = kind.config(**read, tls=Tls(**groups["tls"]), bound=Bound(**groups["bound"]))
    if len(problems) == before:
        problems += [f"{place}.{key}: {text}" for key, text in (*_tls_problems(config), *kind.check(config))]
    return [config]


def _tls_problems(config: DestinationConfig) -> Iterator[tuple[str, str]]:
    tls = config.tls
    if tls != Tls() and not is_encrypted(config.url):
        yield "tls", f"{config.url} asks for no encryption; write https:// or grpcs://"
    if bool(tls.cert_file) != bool(tls.key_file):
        missing = "key_file" if tls.cert_file else "cert_file"
        yield f"tls.{missing}", "must be given too: a client's certificate needs its key"
    elif tls != Tls():
        try:
            ssl_context(tls)
        except OSError as error:
            reason = getattr(error, "reason", None) or error.strerror or str(error)
            yield "tls", f"the files hold no PEM certificate, or not the key of it ({reason})"
