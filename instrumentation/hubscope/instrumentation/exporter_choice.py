"""Which exporters the SDK is set up with: ours, unless the user named others.

`otlp` says what is spoken and not by whom, so under this distro it is ours; `otlp_proto_grpc` and `otlp_proto_http`
name the stock exporters, which are taken then. Said in the environment for the set-up alone: children inherit it, and
may belong to another environment, which does not know our name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Final

_SIGNALS: Final = ("TRACES", "METRICS", "LOGS")
_OTLP: Final = "OTEL_EXPORTER_OTLP_"


def choice(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that differ from what the user said, for the set-up."""
    chosen: dict[str, str] = {}
    for signal in _SIGNALS:
        name = f"OTEL_{signal}_EXPORTER"
        names = [part.strip() for part in (environ.get(name) or "otlp").split(",")]
        if "otlp" in names:
            chosen[name] = ",".join("hubscope" if part == "otlp" else part for part in names)
    said = [
        f"{_OTLP}{scope}{what}" for scope in ("", *(f"{s}_" for s in _SIGNALS)) for what in ("ENDPOINT", "PROTOCOL")
    ]
    if not any(environ.get(name, "").strip() for name in said):
        # The specification's default where nothing is said. The stock Python one is gRPC: 30 ms more at each start.
        chosen[f"{_OTLP}PROTOCOL"] = "http/protobuf"
    return chosen


@contextmanager
def chosen_in(environ: MutableMapping[str, str]) -> Iterator[None]:
    """The environment says our choice inside, and what it said before afterwards."""
    ours = choice(environ)
    before = {name: environ.get(name) for name in ours}
    environ.update(ours)
    try:
        yield
    finally:
        for name, said in before.items():
            if said is None:
                environ.pop(name, None)
            else:
                environ[name] = said
