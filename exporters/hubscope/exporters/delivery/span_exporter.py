"""Spans by OTLP: `OTEL_TRACES_EXPORTER=hubscope`."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from hubscope.exporters.delivery.courier import courier
from hubscope.exporters.delivery.settings import Destination
from hubscope.exporters.encoding.spans import encode_spans


class HubscopeSpanExporter(SpanExporter):
    """Sends to `destination`, or to where OTEL_EXPORTER_OTLP_* say. Never raises, and never waits long at the end."""

    def __init__(self, destination: Destination | None = None) -> None:
        self.courier = courier("traces", destination)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """SUCCESS when the destination has them for good."""
        encoded = encode_spans(spans)
        taken = self.courier.deliver(encoded.payload, encoded.items)
        return SpanExportResult.SUCCESS if taken else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Give up waiting; the SDK exports no more."""
        self.courier.close()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing waits in here."""
        return True
