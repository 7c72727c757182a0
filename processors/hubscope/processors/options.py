"""What the collector's processors are told. Nothing heavy is imported: every process of the collector reads this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

MASK: Final = "mask"
HASH: Final = "hash"
DROP: Final = "drop"
ACTIONS: Final = (MASK, HASH, DROP)


@dataclass(frozen=True)
class RedactionOptions:
    """What becomes of secrets. Patterns are regular expressions that RE2 and Python both read."""

    enabled: bool = True
    action: str = MASK  # `****`; or a keyed hash, the same for the same secret; or the attribute is dropped
    keys: tuple[str, ...] = ()  # more attribute keys whose whole value is a secret, as globs: `acme.*.pin`
    patterns: tuple[str, ...] = ()  # more texts that are secrets: the first group where there is one, else the match
    allowed: tuple[str, ...] = ()  # found texts that match one of these whole are left as they are
    allowed_keys: tuple[str, ...] = ()  # attributes that are never looked at, as globs
    cards: bool = False  # numbers of 13 to 19 digits with a right check digit


@dataclass(frozen=True)
class AttributeLimitOptions:
    """Bounds of one record's attributes; 0 is no bound.

    The SDKs stop at 128 attributes (OpenTelemetry specification, "Attribute Limits"), so who sends more has raised
    that on purpose: this bound is against runaways. Values have none by default: the request's size bounds them.
    """

    count: int = 1024
    value_length: int = 0  # characters of a text, bytes of bytes


@dataclass(frozen=True)
class EnrichmentOptions:
    """Resource attributes added where the sender gave none."""

    # host.name, host.arch, os.type, os.description, where every receiver is on loopback. It takes 0.4 us a span, and in
    # a lake on this machine every row is from this machine.
    host: bool = False
    attributes: tuple[tuple[str, str], ...] = ()  # of anybody's resources


@dataclass(frozen=True)
class SamplingOptions:
    """Tail sampling of traces: which stay whole, and the share of the others that does."""

    enabled: bool = False
    ratio: float = 0.1  # of the traces that nothing keeps whole
    wait_s: float = 10.0  # from a trace's first span to its decision
    slow_s: float = 0.0  # traces at least this long are kept; 0: none for their length alone
    slow_percentile: float = 99.0  # kept above this percentile of their root operation; 0 switches it off
    max_traces: int = 50_000  # waiting for their decision; beyond it the oldest is decided at once
    max_size_bytes: int = 256 << 20  # of their spans, compressed, on disk; the same
    max_decisions: int = 200_000  # remembered for late spans


@dataclass(frozen=True)
class ProcessorOptions:
    """All of it, in the order in which the processors run."""

    redaction: RedactionOptions = field(default_factory=RedactionOptions)
    attribute_limits: AttributeLimitOptions = field(default_factory=AttributeLimitOptions)
    enrichment: EnrichmentOptions = field(default_factory=EnrichmentOptions)
    sampling: SamplingOptions = field(default_factory=SamplingOptions)


def from_plain(raw: Mapping[str, Any]) -> ProcessorOptions:
    """The options of what `dataclasses.asdict` made of them, also by way of JSON, where tuples become lists."""

    def build(kind: type[Any], values: Mapping[str, Any]) -> Any:
        return kind(**{name: _tuples(value) for name, value in values.items()})

    return ProcessorOptions(
        build(RedactionOptions, raw["redaction"]),
        build(AttributeLimitOptions, raw["attribute_limits"]),
        build(EnrichmentOptions, raw["enrichment"]),
        build(SamplingOptions, raw["sampling"]),
    )


def _tuples(value: Any) -> Any:
    return tuple(_tuples(member) for member in value) if isinstance(value, list | tuple) else value
