"""What an exporter is: it takes one segment after the other and either has it for good or says why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

from hubscope.errors import PermanentError, RetryableError

if TYPE_CHECKING:  # it needs Arrow, and the collector's front, which reads an exporter's settings, does without
    from hubscope.processors.batch import Batch

MAX_RETRY_AFTER_S: Final = 300.0  # whatever a server asks for: a wrong header must not stop an exporter for a day


@dataclass(frozen=True)
class Bound:
    """What may wait for a destination. Beyond it the oldest is dropped and counted."""

    age_s: float = 24 * 3600.0  # judged when the destination has just failed to take it
    size_bytes: int = 0  # of the files kept for it; 0 is half of the log's own limit, so that the rest stays usable


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


class Destination(Exporter, Protocol):
    """An exporter beside the lake, which may be away for hours: it keeps count, for its thread to tell.

    `takes` says what it is given: the `records` as they arrived, beside a batch without rows, or a batch with its
    `rows`, beside no records. The counts are of what it takes: requests, or rows.
    """

    takes: Literal["records", "rows"]
    sent: int
    dropped: int  # refused for good
    rejected_items: int  # spans, points and log records of accepted requests that the destination refused
    last_refusal: str

    def sent_of(self, segment: int) -> int:
        """How much of a segment is done with, where it is the one that `export` was last called with."""
        ...


class RefusedDataError(PermanentError):
    """What was sent is refused, not the sender: a part of it may well be taken."""


class RefusedSignalError(PermanentError):
    """Every request of the signal would be refused alike: a token, a path or a protocol is wrong, not what was sent."""


def retryable(message: str, retry_after_s: float = 0.0) -> RetryableError:
    """The destination is not to be had now. `retry_after_s` is what it asked for, if it did."""
    return RetryableError(
        message, "is it running, and reachable from here?", min(max(retry_after_s, 0.0), MAX_RETRY_AFTER_S)
    )
