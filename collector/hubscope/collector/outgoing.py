"""What a destination gets of a segment: what arrived, as redaction and the settings leave it, and what was derived."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hubscope.collector.log.wal import Record, Signal
from hubscope.collector.otlp.attributes import Added
from hubscope.collector.otlp.enrich import with_resource_attributes
from hubscope.collector.segments import ChangedLog, DerivedLog, SampledLog
from hubscope.exporters.forward import ForwardConfig


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
        return [*records, *self._derived.records(segment)]

    def derived(self, segment: int) -> list[Record]:
        """What was derived alone."""
        return self._derived.records(segment)
