"""Group commit: many requests wait together, one sync makes them durable, then all of them are answered.

While one group is on its way to the disk, in a thread of its own, the next one gathers. A request is refused
retryably, before anything is stored of it, when the log, the memory or the disk is at its bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Final

from hubscope.collector.configuration.settings import Limits
from hubscope.collector.log import wal
from hubscope.collector.log.wal import Record, SegmentWriter, Signal
from hubscope.collector.receivers.counters import Counters
from hubscope.errors import RetryableError

MEASURE_INTERVAL_S: Final = 0.25  # the log's size and the disk's room; at 100 MB/s the bound is passed by 25 MB at most
TICK_S: Final = 0.1  # how often an idle log looks whether its segment is due
PAUSE_AFTER_FAILURE_S: Final = 1.0
IN_DOUBT_S: Final = 300.0  # the stock exporters give a request up after a minute or so

_log = logging.getLogger("hubscope.front")


class _Waiting:
    """One request between its arrival and its answer."""

    __slots__ = ("abandoned", "done", "record")

    def __init__(self, record: Record, done: asyncio.Future[None]) -> None:
        self.record = record
        self.done = done
        self.abandoned = False  # its sender hung up


# After a group of several requests the next one waits so long for more. A sync, with the switches between threads
# around it, costs the same for one request and for ten: 0.4 of 3.3 µs a span. One sender alone never waits.
GATHER_S: Final = 0.005
GATHERED_BYTES: Final = 1 << 20  # enough for one: senders that all wait for their answers would only wait longer


class Intake:
    """The front's way into the log. `accept` from any task of the event loop; `run` is the one task that writes."""

    def __init__(
        self,
        writer: SegmentWriter,
        limits: Limits,
        counters: Counters,
        free_disk_bytes: Callable[[], int] | None = None,
    ) -> None:
        self.writer = writer
        self.limits = limits  # replaced by a reload
        self.pressure: Callable[[], RetryableError | None] = lambda: None  # one more reason to refuse: memory
        self._counters = counters
        self._free_disk_bytes = free_disk_bytes or (lambda: shutil.disk_usage(writer.directory).free)
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self.accepted = 0  # requests that are on disk
        self._wake = asyncio.Event()
        self._enough = asyncio.Event()  # for one group
        self._stopping = False
        self._log_bytes = wal.log_size_bytes(writer.directory)
        self._free_bytes = sys.maxsize
        self._measure_again_s = 0.0
        self._paused_until_s = 0.0
        self._pause_reason = "its disk is full"
        self._thread = ThreadPoolExecutor(1, "log")  # one thread: the writer is not thread-safe
        self._in_doubt: dict[bytes, float] = {}  # digest of a trace request that is in the log -> known until
        if writer.is_open:
            self._note_recovery()

    @property
    def log_bytes(self) -> int:
        """Size of the log when it was last measured, and what was written since."""
        return self._log_bytes

    @property
    def waiting_bytes(self) -> int:
        """Of requests between arrival and answer."""
        return self._waiting_bytes

    async def accept(self, signal: Signal, payload: bytes) -> None:
        """Returns when the request is on disk.

        Raises RetryableError when it cannot be taken now; then nothing of it is kept.
        """
        if self._in_doubt and self._is_repeated(signal, payload):
            self._counters.repeated_requests += 1
            return
        size_bytes = len(payload)
        refusal = self.refusal(size_bytes)
        if refusal is not None:
            raise refusal
        await self._store(Record(signal, payload, time.time_ns()))
        self.accepted += 1

    async def tick(self, ahead_s: float = 0.0) -> None:
        """An empty record, from so many seconds ahead: time goes on for what waits in the log. Raises as `accept`."""
        refusal = self.refusal()
        if refusal is not None:
            raise refusal
        await self._store(Record(Signal.LOGS, b"", time.time_ns() + int(ahead_s * 1e9)))

    async def _store(self, record: Record) -> None:
        size_bytes = len(record.payload)
        waiting = _Waiting(record, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._waiting_bytes += size_bytes
        self._wake.set()
        if self._waiting_bytes >= GATHERED_BYTES:
            self._enough.set()
        try:
            await waiting.done
        except asyncio.CancelledError:
            waiting.abandoned = True
            if waiting.done.done() and not waiting.done.cancelled() and waiting.done.exception() is None:
                self._doubt(waiting.record)
            raise
        finally:
            self._waiting_bytes -= size_bytes

    def refusal(self, size_bytes: int = 0) -> RetryableError | None:
        """Why a request of that size cannot be taken now, or None."""
        if self._stopping:
            return RetryableError("the collector is stopping", retry_after_s=2.0)
        if time.monotonic() < self._paused_until_s or not self.writer.is_open:
            return RetryableError(f"the log cannot be written: {self._pause_reason}", retry_after_s=2.0)
        pressure = self.pressure()
        if pressure is not None:
            return pressure
        if self._waiting_bytes + size_bytes > self.limits.waiting_size_bytes:
            return RetryableError(
                f"{self._waiting_bytes} B of requests are waiting for the disk already "
                f"(receivers.max_waiting_size is {self.limits.waiting_size_bytes} B)",
                retry_after_s=1.0,
            )
        if self._log_bytes + size_bytes > self.limits.log_size_bytes:
            return RetryableError(
                f"the write-ahead log is full ({self._log_bytes} B; log.max_size is {self.limits.log_size_bytes} B)",
                retry_after_s=5.0,
            )
        if self._free_bytes - size_bytes < self.limits.free_disk_bytes:
            return RetryableError(
                f"the disk is nearly full ({self._free_bytes} B free; log.min_free_disk is "
                f"{self.limits.free_disk_bytes} B)",
                retry_after_s=5.0,
            )
        return None

    async def run(self) -> None:
        """Writes, syncs, answers and seals until `stop`; then seals what is left and closes the log."""
        loop = asyncio.get_running_loop()
        await self._open()
        grouped = 0
        while True:
            await self._measure()
            if not self._waiting:
                if self._stopping:
                    break
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), TICK_S)
            if grouped > 1 and not self._stopping:
                self._enough.clear()
                if self._waiting_bytes < GATHERED_BYTES:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._enough.wait(), GATHER_S)
            self._wake.clear()
            group, self._waiting = self._waiting, []
            grouped = len(group)
            if group:
                try:
                    await loop.run_in_executor(self._thread, self.writer.append, [w.record for w in group])
                except OSError as error:
                    self._fail(group, error)
                else:
                    self._answer(group)
            if self.writer.due():
                try:
                    await loop.run_in_executor(self._thread, self.writer.seal)
                except OSError as error:
                    self._pause(error)
                    await asyncio.sleep(TICK_S)
        await loop.run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    async def _open(self) -> None:
        """Open a log that the disk had no room for when the collector started; whatever comes meanwhile is refused."""
        loop = asyncio.get_running_loop()
        while not self.writer.is_open and not self._stopping:
            try:
                await loop.run_in_executor(self._thread, self.writer.open)
                self._note_recovery()
            except OSError as error:
                self._pause(error)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), PAUSE_AFTER_FAILURE_S)

    def _note_recovery(self) -> None:
        found = self.writer.recovery
        for record in found.last_records:
            self._doubt(record)
        self._counters.torn_bytes += found.torn_bytes
        if found.segments or found.torn_bytes:
            _log.info("recovered %d segments; %d torn bytes cut off", found.segments, found.torn_bytes)

    def stop(self) -> None:
        """Refuse what comes from now on; `run` ends when everything that waits has its answer."""
        self._stopping = True
        self._wake.set()
        self._enough.set()

    def _close(self) -> None:
        if not self.writer.is_open:
            return
        with contextlib.suppress(OSError):  # an open segment stays as it is: the next start recovers it
            self.writer.close()

    def _answer(self, group: list[_Waiting]) -> None:
        size_bytes = 0
        for waiting in group:
            size_bytes += len(waiting.record.payload) + wal.HEADER.size
            if waiting.abandoned:
                self._doubt(waiting.record)
            elif not waiting.done.done():
                waiting.done.set_result(None)
        self._log_bytes += size_bytes
        self._free_bytes -= size_bytes
        self._counters.log_bytes += size_bytes
        self._counters.log_syncs += 1

    def _fail(self, group: list[_Waiting], error: OSError) -> None:
        self._pause(error)
        for waiting in group:
            if not waiting.done.done():
                waiting.done.set_exception(
                    RetryableError(f"the log cannot be written: {self._pause_reason}", retry_after_s=2.0)
                )

    def _pause(self, error: OSError) -> None:
        self._counters.log_failures += 1
        self._pause_reason = os.strerror(error.errno) if error.errno else str(error)
        self._paused_until_s = time.monotonic() + PAUSE_AFTER_FAILURE_S

    async def _measure(self) -> None:
        """Look at the log and the disk. Listing 20,000 segments takes 70 ms: in a thread, and at most a tenth of it."""
        now_s = time.monotonic()
        if now_s < self._measure_again_s:
            return
        loop = asyncio.get_running_loop()
        self._log_bytes = await loop.run_in_executor(self._thread, wal.log_size_bytes, self.writer.directory)
        took_s = time.monotonic() - now_s
        self._measure_again_s = now_s + max(MEASURE_INTERVAL_S, 10 * took_s)
        with contextlib.suppress(OSError):
            self._free_bytes = self._free_disk_bytes()
        for digest in [d for d, until_s in self._in_doubt.items() if until_s < now_s]:
            del self._in_doubt[digest]

    def _doubt(self, record: Record) -> None:
        """Remember a request that is in the log though its sender may have got no answer, and so may send it again.

        Traces only: two trace requests with the same bytes have the same span ids and so are one. Log records and
        metric points have no identity: two equal requests may both be meant, and dropping one would lose data.
        """
        if record.signal is Signal.TRACES:
            self._in_doubt[_digest(record.payload)] = time.monotonic() + IN_DOUBT_S

    def _is_repeated(self, signal: Signal, payload: bytes) -> bool:
        return signal is Signal.TRACES and _digest(payload) in self._in_doubt


def _digest(payload: bytes) -> bytes:
    return blake2b(payload, digest_size=16).digest()
