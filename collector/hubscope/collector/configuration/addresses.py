"""Where the collector listens: an address, and the usual ones. Light, for those who only look for a collector too."""

from __future__ import annotations

from typing import Final, NamedTuple


class Address(NamedTuple):
    """Where a socket listens. Port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


DEFAULT_GRPC: Final = Address("127.0.0.1", 4317)  # OTLP's own ports
DEFAULT_HTTP: Final = Address("127.0.0.1", 4318)
DEFAULT_TELEMETRY: Final = Address("127.0.0.1", 8888)  # where the stock Collector has its metrics
