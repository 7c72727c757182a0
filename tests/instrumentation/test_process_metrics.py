"""What the process tells of itself."""

from __future__ import annotations

import os
import time

import psutil
import pytest

from hubscope import semconv
from hubscope.instrumentation import process_metrics


@pytest.fixture
def observed(recorded, monkeypatch):
    """The instrumentor on for one test."""
    monkeypatch.setattr(process_metrics, "_made", False)
    instrumentor = process_metrics.ProcessMetricsInstrumentor()
    instrumentor.instrument()
    yield recorded
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


def test_readings_are_those_of_the_system(observed):
    """Memory, threads, descriptors and CPU time agree with what psutil says of this process."""
    process = psutil.Process(os.getpid())
    deadline = time.monotonic() + 10
    points = observed.metrics()
    # A thread of an earlier test may end between the two readings.
    while points["process.thread.count"][0].value != process.num_threads():
        assert time.monotonic() < deadline
        points = observed.metrics()
    assert points["process.memory.usage"][0].value == pytest.approx(process.memory_info().rss, rel=0.2)
    assert points["process.unix.file_descriptor.count"][0].value == pytest.approx(process.num_fds(), abs=3)
    modes = {point.attributes["cpu.mode"]: point.value for point in points["process.cpu.time"]}
    assert modes.keys() == {"user", "system"}
    assert 0 < modes["user"] <= process.cpu_times().user
    assert len(points["cpython.gc.collections"]) == 3
    assert 0 <= points["process.cpu.utilization"][0].value <= 1.5


def test_uninstrumented_it_is_silent(observed):
    """Afterwards nothing is observed any more."""
    process_metrics.ProcessMetricsInstrumentor().uninstrument()
    assert not [name for name in observed.metrics() if name.startswith("process.")]


def test_every_attribute_is_described(observed):
    """What is sent is what semconv lists for the metric."""
    described = {metric.name: set(metric.attributes) for metric in semconv.METRICS}
    for name, points in observed.metrics().items():
        assert {key for point in points for key in point.attributes} <= described[name], name
