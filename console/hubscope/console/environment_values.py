"""What `hubscope doctor` says of values that the OpenTelemetry SDK, or hubscope, cannot use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import Final, NamedTuple

from hubscope.instrumentation.settings import EXIT_TIMEOUT_MS, IMPORT_THRESHOLD_MS, NUMBERS, is_number

_PROTOCOLS: Final = ("grpc", "http/protobuf", "http/json")


class Wrong(NamedTuple):
    """A variable with a value that cannot be used; `is_harmless` where a default takes its place."""

    name: str
    detail: str
    remedy: str
    is_harmless: bool = False


def values(environ: Mapping[str, str]) -> Iterator[Wrong]:
    """Numbers are numbers, and names are those of something that is installed."""
    for name in (*NUMBERS, IMPORT_THRESHOLD_MS, EXIT_TIMEOUT_MS):
        text = environ.get(name, "").strip()
        if text and not is_number(text):
            detail = f"{text!r} is no number of at least 0, and the default is used"
            yield Wrong(name, detail, f"unset {name}", is_harmless=True)
    for name in sorted(environ):
        if name.startswith("OTEL_EXPORTER_OTLP_") and name.endswith("PROTOCOL"):
            yield from _one_of(name, environ[name], _PROTOCOLS)
    sampler = environ.get("OTEL_TRACES_SAMPLER", "")
    yield from _one_of("OTEL_TRACES_SAMPLER", sampler, _installed("opentelemetry_traces_sampler"))
    propagators = ("none", *_installed("opentelemetry_propagator"))
    for text in environ.get("OTEL_PROPAGATORS", "").split(","):
        yield from _one_of("OTEL_PROPAGATORS", text, propagators)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> Iterator[Wrong]:
    text = value.strip()
    if text and text.lower() not in known:
        near = get_close_matches(text.lower(), known, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"unset {name}, or one of {', '.join(known)}"
        yield Wrong(name, f"{text!r} is none that is installed", remedy)


def _installed(group: str) -> tuple[str, ...]:
    return tuple(sorted({entry.name for entry in entry_points(group=group)}))
