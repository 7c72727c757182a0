"""The process itself: CPU, memory, threads, file descriptors, garbage collections, read once a metric interval."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Collection, Iterable
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped there
from opentelemetry.metrics import CallbackOptions, Observation

from hubscope import semconv as names
from hubscope.instrumentation import signals

_enabled = False
_made = False


class _Reader:
    """psutil's view of this process; made anew in a forked child."""

    def __init__(self) -> None:
        self._pid = -1
        self._process: Any = None
        self._wall_s = self._cpu_s = 0.0

    def process(self) -> Any:
        if self._pid != os.getpid():
            import psutil

            self._process, self._pid = psutil.Process(), os.getpid()
            self._wall_s, self._cpu_s = time.monotonic(), time.process_time()
        return self._process

    def cpu_utilization(self) -> float | None:
        """The share of the machine's CPUs used since the reading before, or None where no time has passed.

        By the process's own clock: psutil's counts in ticks of 10 ms, and two readings 1 ms apart said 459 %.
        """
        self.process()
        wall_s, cpu_s = time.monotonic(), time.process_time()
        passed_s, used_s = wall_s - self._wall_s, cpu_s - self._cpu_s
        if passed_s <= 0:
            return None
        self._wall_s, self._cpu_s = wall_s, cpu_s
        return used_s / passed_s / (os.cpu_count() or 1)


_reader = _Reader()


def _cpu_utilization() -> Iterable[Observation]:
    utilization = _reader.cpu_utilization()
    if utilization is not None:
        yield Observation(utilization)


def _cpu_time() -> Iterable[Observation]:
    times = _reader.process().cpu_times()
    yield Observation(times.user, {names.CPU_MODE: "user"})
    yield Observation(times.system, {names.CPU_MODE: "system"})


def _memory_usage() -> Iterable[Observation]:
    yield Observation(_reader.process().memory_info().rss)


def _memory_virtual() -> Iterable[Observation]:
    yield Observation(_reader.process().memory_info().vms)


def _threads() -> Iterable[Observation]:
    yield Observation(_reader.process().num_threads())


def _file_descriptors() -> Iterable[Observation]:
    process = _reader.process()
    if hasattr(process, "num_fds"):  # not on Windows
        yield Observation(process.num_fds())


def _collections() -> Iterable[Observation]:
    for generation, stats in enumerate(gc.get_stats()):
        yield Observation(stats["collections"], {names.CPYTHON_GC_GENERATION: generation})


_READINGS = (
    (names.METRIC_PROCESS_CPU_UTILIZATION, "observable_gauge", _cpu_utilization),
    (names.METRIC_PROCESS_CPU_TIME, "observable_counter", _cpu_time),
    (names.METRIC_PROCESS_MEMORY_USAGE, "observable_up_down_counter", _memory_usage),
    (names.METRIC_PROCESS_MEMORY_VIRTUAL, "observable_up_down_counter", _memory_virtual),
    (names.METRIC_PROCESS_THREADS, "observable_up_down_counter", _threads),
    (names.METRIC_PROCESS_FDS, "observable_up_down_counter", _file_descriptors),
    (names.METRIC_GC_COLLECTIONS, "observable_counter", _collections),
)


def _callback(read: Any) -> Any:
    def observe(options: CallbackOptions) -> Iterable[Observation]:
        if not _enabled:
            return []
        try:
            return list(read())
        except Exception:  # noqa: BLE001 - psutil: gone or forbidden; this reading is left out
            return []

    return observe


class ProcessMetricsInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # no type information
    """Observes the process. Un-instrumented, the instruments stay (the API cannot remove them) and say nothing."""

    def instrumentation_dependencies(self) -> Collection[str]:
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        global _enabled, _made
        handles = signals.handles()
        if handles is None:
            return
        _enabled = True
        if _made:
            return
        _made = True
        _reader.process()
        described = {metric.name: metric for metric in names.METRICS}
        for name, kind, read in _READINGS:
            metric = described[name]
            make = getattr(handles.meter, f"create_{kind}")
            make(name, callbacks=[_callback(read)], unit=metric.unit, description=metric.brief)

    def _uninstrument(self, **kwargs: Any) -> None:
        global _enabled
        _enabled = False
