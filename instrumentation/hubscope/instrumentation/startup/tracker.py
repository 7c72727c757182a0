"""`hub.startup`: the root span of the start, its end, and what hangs under it.

The end is what the application says (`hub.interactive()`). An application that says nothing is judged by what it
does: the first listening TCP socket of the process (`listening`; a web server takes requests from then on), the first
SERVER span or `task` (`first_request`), else the exit of the process (`exit`). What is seen is held back for five
seconds, because an application may listen first and say that it is interactive afterwards; what it says then wins.

A process that a measured one started (`HUBSCOPE_INSTRUMENT_CHILDREN`) is a worker: the root of its start has another
name, and nothing of it counts as a start of the application.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from hubscope import semconv
from hubscope.instrumentation import settings, signals
from hubscope.instrumentation.startup import process_start
from hubscope.instrumentation.startup.imports import Import, ImportRecorder

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_log = logging.getLogger("hubscope")

GRACE_S = 5.0
# Measured with libraries and byte code out of the page cache: a cold start of the SDK or of Datasette takes 14 to 21
# major faults and reads 9 to 39 MB, a warm one 0 to 6 faults and up to 0.1 MB. Byte code is read, not mapped: a cold
# start with few shared objects shows in the bytes only.
COLD_FROM_MAJOR_FAULTS = 10
COLD_FROM_READ_BYTES = 4 * 2**20
_BLOCK_BYTES = 512  # the unit of ru_inblock, whatever the file system


class End(NamedTuple):
    """How a start ended: `reason` as `hub.startup.end` has it, and what the process had used by then."""

    reason: str
    unix_nano: int
    major_faults: int | None
    read_bytes: int | None
    resident_bytes: int | None


class Startup:
    """One start of one process. All methods are safe in any thread and cheap once it is over."""

    def __init__(
        self, handles: signals.Handles, start: process_start.ProcessStart, threshold_ns: int, parent: str = ""
    ) -> None:
        from opentelemetry.context import get_current

        self._handles = handles
        self._start = start
        self._ready_ns = time_ns()
        self._lock = threading.Lock()
        self._seen: End | None = None
        self._used_when_seen: dict[Import, bool | None] = {}
        self._done = False
        self._rendered = False
        self._timer: threading.Timer | None = None
        self._pid = os.getpid()
        self._task_seen = False
        self.recorder = ImportRecorder(threshold_ns, get_current)
        self._is_worker = bool(parent)
        attributes = {semconv.HUB_STARTUP_ORIGIN: start.origin}
        if parent:
            attributes[semconv.HUB_STARTUP_PARENT] = parent
        name = semconv.SPAN_WORKER_STARTUP if parent else semconv.SPAN_STARTUP
        self.span: Span = handles.tracer.start_span(name, start_time=start.unix_nano, attributes=attributes)

    def first_render(self) -> None:
        """The application showed something. Only the first call counts."""
        now_ns = time_ns()
        with self._lock:
            if self._rendered or self._done:
                return
            self._rendered = True
        if self._is_worker:
            return
        context = self._context()
        span = self._handles.tracer.start_span(
            semconv.SPAN_FIRST_RENDER, context=context, start_time=self._start.unix_nano
        )
        span.end(now_ns)
        self._handles.event(semconv.EVENT_FIRST_RENDER, {}, context)

    def interactive(self) -> None:
        """The application answers its user from now on."""
        context = self._context()
        self._used_when_seen = {}
        first = self._finish(_end("interactive"))
        if first and not self._is_worker:
            self._handles.event(semconv.EVENT_INTERACTIVE, {}, context)

    def seen(self, reason: str) -> None:
        """Something was seen that ends a start, unless the application says otherwise within the grace time."""
        if self._seen is not None or self._done:
            return
        with self._lock:
            if self._seen is not None or self._done or self._pid != os.getpid():
                return
            self._seen = _end(reason)
            self._used_when_seen = {r: self.recorder.used(r) for r in list(self.recorder.kept)}
            timer = self._timer = threading.Timer(GRACE_S, self.settle)
            timer.daemon = True
        signals.set_startup_span(None)
        timer.start()

    def take_first_task(self) -> bool:
        """True once: for the first task of the process."""
        with self._lock:
            first, self._task_seen = not self._task_seen, True
        return first

    def settle(self) -> None:
        """End the start with what was seen, or with `exit`."""
        self._finish(self._seen or _end("exit"))

    def abandon(self) -> None:
        """Forget the start: a forked child is not the process that started."""
        self._done = True
        self.recorder.close()
        signals.set_startup_span(None)

    def set_up_again(self, ready: bool) -> None:
        """Our own set-up goes on (False) or is done (True): its imports are not the application's."""
        if self._done:
            return
        if ready:
            self._ready_ns = time_ns()
            self.recorder.install()
        else:
            self.recorder.uninstall()

    @contextmanager
    def unrecorded(self) -> Iterator[None]:
        """What is imported inside is ours, and not the application's."""
        if not self._done:
            self.recorder.uninstall()
        try:
            yield
        finally:
            if not self._done:
                self.recorder.install()

    def _context(self) -> Any:
        from opentelemetry.trace import set_span_in_context

        return set_span_in_context(self.span)

    def _finish(self, end: End) -> bool:
        with self._lock:
            if self._done:
                return False
            self._done = True
            timer = self._timer
        if timer is not None:
            timer.cancel()
        signals.set_startup_span(None)
        self.recorder.uninstall()
        try:
            self._emit(end)
        except Exception:  # noqa: BLE001 - never into the application
            _log.debug("the start could not be reported", exc_info=True)
        finally:
            self.recorder.close()
            self.recorder.kept.clear()
            self._used_when_seen.clear()
        return True

    def _emit(self, end: End) -> None:
        tracer, context = self._handles.tracer, self._context()
        measuring_ns = process_start.interpreter_end_ns(self._start.unix_nano)
        ours = (
            ("interpreter", self._start.unix_nano, measuring_ns),
            (semconv.OWN_PHASE, measuring_ns, self._ready_ns),
        )
        for name, start_ns, end_ns in () if self._is_worker else ours:
            phase = tracer.start_span(
                semconv.SPAN_PHASE.format(name=name),
                context=context,
                start_time=start_ns,
                attributes={semconv.HUB_STARTUP_PHASE: name},
            )
            phase.end(max(start_ns, end_ns))
        self._emit_imports(context, end.unix_nano)
        kind = os.environ.get(settings.STARTUP_TYPE, "").strip().lower()
        if kind not in ("cold", "warm"):
            kind = _kind(end)
        span = self.span
        span.set_attribute(semconv.HUB_STARTUP_END, end.reason)
        if kind:
            span.set_attribute(semconv.HUB_STARTUP_TYPE, kind)
        if end.major_faults is not None:
            span.set_attribute(semconv.HUB_STARTUP_MAJOR_FAULTS, end.major_faults)
        _renew_resource(span, self._handles)
        span.end(max(end.unix_nano, self._start.unix_nano))
        if self._is_worker:
            return
        self._handles.instrument(semconv.METRIC_IMPORT_DURATION).record(self.recorder.outermost_ns / 1e9)
        if end.reason == "exit":
            return  # a program that ran to its end: its whole run time is no start-up time
        duration_s = (end.unix_nano - self._start.unix_nano) / 1e9
        attributes = {semconv.HUB_STARTUP_TYPE: kind} if kind else {}
        self._handles.instrument(semconv.METRIC_STARTUP_DURATION).record(duration_s, attributes)
        if end.resident_bytes is not None:
            self._handles.instrument(semconv.METRIC_STARTUP_MEMORY).set(end.resident_bytes)

    def _emit_imports(self, root: Any, end_unix_nano: int) -> None:
        from opentelemetry.trace import INVALID_SPAN, get_current_span, set_span_in_context

        recorder, now = self.recorder, perf_counter_ns()
        # An import that still runs is one whose module runs the application: it is long enough by now, or not shown.
        running = [r for r in list(recorder.active) if now - r.start_ns >= recorder.threshold_ns]
        spans: dict[Import, Any] = {}
        for record in sorted([*recorder.kept, *running], key=lambda r: r.start_ns):
            start_ns = recorder.unix_nano(record.start_ns)
            if start_ns >= end_unix_nano:
                continue
            stop_ns = recorder.unix_nano(record.end_ns) if record.end_ns else end_unix_nano
            if record.parent in spans:
                context = spans[record.parent]
            elif record.context is not None and get_current_span(record.context) is not INVALID_SPAN:
                context = record.context
            else:
                context = root
            self_ns = record.self_ns if record.end_ns else max(0, now - record.start_ns - record.children_ns)
            attributes: dict[str, Any] = {
                semconv.HUB_IMPORT_MODULE: record.name,
                semconv.HUB_IMPORT_SELF_TIME: self_ns / 1e9,
            }
            used = self._used_when_seen[record] if record in self._used_when_seen else recorder.used(record)
            if used is not None:
                attributes[semconv.HUB_IMPORT_USED_BEFORE_INTERACTIVE] = used
            if record.error is not None:
                attributes[semconv.ERROR_TYPE] = record.error
            span = self._handles.tracer.start_span(
                semconv.SPAN_IMPORT.format(module=record.name),
                context=context,
                start_time=start_ns,
                attributes=attributes,
            )
            spans[record] = set_span_in_context(span)
            span.end(stop_ns)


def _end(reason: str) -> End:
    now_ns = time_ns()
    faults, read_bytes = _from_disk()
    return End(reason, now_ns, faults, read_bytes, _resident_bytes())


def _kind(end: End) -> str:
    """`cold`, `warm`, or "" where the system does not count."""
    if end.major_faults is None or end.read_bytes is None:
        return ""
    cold = end.major_faults >= COLD_FROM_MAJOR_FAULTS or end.read_bytes >= COLD_FROM_READ_BYTES
    return "cold" if cold else "warm"


def _from_disk() -> tuple[int | None, int | None]:
    """(major page faults, bytes read) of the process so far."""
    try:
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_majflt, used.ru_inblock * _BLOCK_BYTES
    except (ImportError, OSError):  # Windows has no such counts
        return None, None


def _resident_bytes() -> int | None:
    try:
        import psutil

        return int(psutil.Process().memory_info().rss)
    except Exception:  # noqa: BLE001 - psutil raises its own, by platform
        return None


def _renew_resource(span: Any, handles: signals.Handles) -> None:
    """The start's span is older than what `hub.configure(service_name=…)` said since: give it the resource of now."""
    resource = getattr(handles.tracer, "resource", None)
    if resource is not None and hasattr(span, "_resource"):
        span._resource = resource


_current: Startup | None = None


def current() -> Startup | None:
    """The start that is going on, or was; None where nothing is configured."""
    return _current


def begin(handles: signals.Handles, parent: str = "") -> Startup:
    """Start the root span, the import recorder, and what ends them. Once a process.

    `parent` is the service.instance.id of the measured process that started this one, '' for an application.
    """
    global _current
    if _current is not None:
        return _current
    threshold_ms = settings.positive_number(settings.IMPORT_THRESHOLD_MS, settings.DEFAULT_IMPORT_THRESHOLD_MS)
    started = _current = Startup(handles, process_start.find(), int(threshold_ms * 1e6), parent)
    signals.set_startup_span(started.span)
    atexit.register(started.settle)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=started.abandon)
    from hubscope.instrumentation.startup import listening

    listening.watch(lambda: started.seen("listening"))
    if not started.recorder.install():
        _log.warning("hubscope: imports are not measured: this interpreter has no importlib._bootstrap._find_and_load")
    return started
