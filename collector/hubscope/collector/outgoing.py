"""What a destination gets of a segment: what arrived, as redaction and the settings leave it, and what was derived."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from hubscope.collector.log.wal import Record, Signal
from hubscope.collector.otlp.attributes import Added
from hubscope.collector.otlp.encode import encode_derived
from hubscope.collector.otlp.encode_traces import encode_spans
from hubscope.collector.otlp.enrich import with_resource_attributes
from hubscope.collector.segments import ChangedLog, DerivedLog, SampledLog
from hubscope.exporters.forward import ForwardConfig
from hubscope.lake_schema import TRACES
from hubscope.processors.batch import Batch

_log = logging.getLogger(__name__)


class Outgoing:
    """For one destination. `added` are the attributes of resources, if the destination is to have them.

    `is_sampling`: a destination that takes samples gets the spans that sampling lets go, and none as they arrive.
    """

    def __init__(
        self, state_dir: Path, destination: ForwardConfig, added: Added = (), is_sampling: bool = False
    ) -> None:
        self._derived = DerivedLog(state_dir)
        self._changed = ChangedLog(state_dir)
        self._sampled = SampledLog(state_dir) if is_sampling and destination.sampled else None
        self._added = added if destination.enriched else ()

    def records(self, segment: int, arrived: Sequence[Record]) -> list[Record]:
        """The records to send. Raises LakeError where it cannot be told any more what may leave this machine."""
        records = self._changed.applied(segment, arrived)
        if self._sampled is not None:
            records = [record for record in records if record.signal is not Signal.TRACES]
            records += self._sampled.records(segment)
        if self._added:
            records = [r._replace(payload=with_resource_attributes(r.payload, self._added)) for r in records]
        # Ahead of what they are made of: a hubscope collector that gets both then knows what is derived already.
        return [*self._derived.records(segment), *records]

    def derived(self, segment: int) -> list[Record]:
        """What was derived alone."""
        return self._derived.records(segment)


def encoded(batch: Batch) -> list[Record]:
    """The derived rows as OTLP. Should they not go into it, they stand in the lake only, and the log says so."""
    try:
        return encode_derived(batch.derived, batch.received_unix_nano)
    except Exception:  # noqa: BLE001 - what was derived must not stop what arrived
        _log.exception("what was derived of segment %d cannot be forwarded", batch.segment)
        return []


def encoded_spans(batch: Batch) -> list[Record]:
    """The spans that sampling let go, as OTLP."""
    spans = batch.tables.get(TRACES)
    return encode_spans(spans, batch.received_unix_nano) if spans is not None else []
