"""What an exporter is: it takes one segment after the other and either has it for good or says why not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from hubscope.errors import RetryableError

if TYPE_CHECKING:  # it needs Arrow, and the collector's front, which reads an exporter's settings, does without
    from hubscope.processors.batch import Batch


class RecordLike(Protocol):
    """One request as it was received. `signal` is 1 traces, 2 metrics, 3 logs; `payload` is OTLP protobuf."""

    @property
    def signal(self) -> int: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def received_unix_nano(self) -> int: ...


class Exporter(Protocol):
    """A destination. Its thread calls `export` with segments in ascending order, one at a time.

    A segment may come again after a crash. `export` returns once the destination has it for good; it raises
    RetryableError to be called again with the same segment and PermanentError where that could not help.
    """

    @property
    def name(self) -> str: ...
    def export(self, batch: Batch, records: Sequence[RecordLike]) -> None: ...
    def close(self) -> None: ...


def retryable(message: str, retry_after_s: float = 1.0) -> RetryableError:
    """The destination is not to be had now."""
    return RetryableError(message, "is it running, and reachable from here?", retry_after_s)
