"""Log records by OTLP: `OTEL_LOGS_EXPORTER=hubscope`."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult

from hubscope.exporters.delivery.courier import courier
from hubscope.exporters.delivery.settings import Destination
from hubscope.exporters.encoding.logs import encode_logs


class HubscopeLogRecordExporter(LogRecordExporter):
    """Sends to `destination`, or to where OTEL_EXPORTER_OTLP_* say. Never raises, and never waits long at the end."""

    def __init__(self, destination: Destination | None = None) -> None:
        self.courier = courier("logs", destination)

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """SUCCESS when the destination has them for good."""
        encoded = encode_logs(batch)
        taken = self.courier.deliver(encoded.payload, encoded.items)
        return LogRecordExportResult.SUCCESS if taken else LogRecordExportResult.FAILURE

    def shutdown(self) -> None:
        """Give up waiting; the SDK exports no more."""
        self.courier.close()

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        """Nothing waits in here."""
        return True
