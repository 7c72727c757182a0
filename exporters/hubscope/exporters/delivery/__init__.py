"""Sending from inside the application: the exporters that the entry points named `hubscope` give.

    OTEL_TRACES_EXPORTER=hubscope opentelemetry-instrument python app.py   # with any SDK set-up, and by our distro

Plain sockets for OTLP/HTTP and, where it is asked for, grpcio for OTLP/gRPC; neither protobuf nor requests is loaded.
One module an idea: `settings` (what the environment says, read as the stock exporters read it), `http_sender`,
`grpc_sender` and `session_sender` (one request and what came of it), `courier` (tries again, splits, keeps, counts) and
`sdk` (the three classes that OpenTelemetry's SDK loads).
"""

from __future__ import annotations

from typing import Final

USER_AGENT: Final = "hubscope"  # as the collector's own client says it
