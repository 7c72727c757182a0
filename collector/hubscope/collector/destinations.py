"""The worker's destinations beside the lake, each with its thread, its cursor and its source."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from hubscope.collector.configuration.destinations import all_of
from hubscope.collector.configuration.settings import CollectorSettings
from hubscope.collector.destination_delivery import DestinationDelivery
from hubscope.collector.kept_rows import KeptRows
from hubscope.collector.log.cursors import Cursor
from hubscope.collector.log.wal import Record
from hubscope.collector.outgoing import Outgoing, encoded, encoded_spans
from hubscope.collector.segments import ChangedLog, DerivedLog, SampledLog
from hubscope.collector.sources import Requests, Rows, Source
from hubscope.exporters.forward import ForwardConfig
from hubscope.processors.batch import Batch
from hubscope.processors.pipeline import Chain


class Destinations:
    """All of them. Where there is none, nothing is kept for any."""

    def __init__(
        self,
        settings: CollectorSettings,
        chain: Chain,
        writer_id: str,
        processed: Callable[[], int],
        stop: threading.Event,
        draining: threading.Event,
    ) -> None:
        state_dir = Path(settings.state_dir)
        self.kept = KeptRows(state_dir)
        self._derived = DerivedLog(state_dir)
        self._changed = ChangedLog(state_dir)
        self._sampled = SampledLog(state_dir)
        self._takes_samples = chain.is_sampling and any(config.sampled for config in settings.forward)
        self.of_requests: list[DestinationDelivery] = []
        self.of_rows: list[DestinationDelivery] = []
        for kind, config in all_of(settings):
            cursor = Cursor(state_dir, config.name)
            if not cursor.exists:  # a new destination gets what comes from now on
                cursor.advance(processed())
            bound = config.bound
            if not bound.size_bytes:  # the other half stays for the lake
                bound = replace(bound, size_bytes=settings.limits.log_size_bytes // 2)
            exporter = kind.make(config, writer_id)
            takes_rows = exporter.takes == "rows"
            source: Source
            if takes_rows:
                source = Rows(self.kept)
            else:
                outgoing = Outgoing(state_dir, cast(ForwardConfig, config), chain.added, chain.is_sampling)
                source = Requests(settings.wal_dir, state_dir, outgoing)
            delivery = DestinationDelivery(exporter, cursor, stop, draining, source, processed, bound)
            (self.of_rows if takes_rows else self.of_requests).append(delivery)

    @property
    def deliveries(self) -> list[DestinationDelivery]:
        return [*self.of_requests, *self.of_rows]

    def keep(
        self,
        batch: Batch,
        records: Sequence[Record],
        changed: Mapping[int, bytes],
        set_aside: Collection[int] = (),
    ) -> int:
        """Keep what the destinations need beside the log, durably, before the lake has the segment. Raises OSError.

        `changed` has what is sent in place of records, by their index; nothing for one that is not to be sent. Gives
        the size in bytes of the rows' file, 0 where no destination takes rows.
        """
        if self.of_requests:
            self._derived.keep(batch.segment, encoded(batch))
            self._changed.keep(batch.segment, records, changed)
            if self._takes_samples:
                self._sampled.keep(batch.segment, encoded_spans(batch))
        return self.kept.keep(batch, len(records) - len(set_aside), set_aside) if self.of_rows else 0

    def finished(self, lake_segment: int) -> int:
        """The last segment that the log need not hold, where the lake has `lake_segment`; rows are kept beside it."""
        return min([lake_segment, *(delivery.cursor.segment for delivery in self.of_requests)])

    def forget(self, lake_segment: int) -> None:
        """Remove what every one has; a segment that the lake has not got yet would be kept again by a replay."""
        for log in (self._derived, self._changed, self._sampled):
            log.forget_up_to(self.finished(lake_segment))
        self.kept.forget_up_to(min([lake_segment, *(delivery.cursor.segment for delivery in self.of_rows)]))
