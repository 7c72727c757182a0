"""The queue between spans and the courier: none lost, none twice, bounded, whatever ends them."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from hubscope.exporters.delivery.courier import Courier
from hubscope.exporters.delivery.leaving import Leaving, Wait
from hubscope.exporters.delivery.outcome import Came, Outcome
from hubscope.exporters.delivery.settings import Destination
from hubscope.exporters.delivery.span_batches import Limits, SpanBatches, limits
from hubscope.exporters.delivery.span_exporter import HubscopeSpanExporter


class Kept:
    """A sender that keeps what it gets; `hold` makes it wait."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.hold = threading.Event()
        self.hold.set()

    def send(self, payload: bytes, wait: Wait) -> Outcome:
        assert self.hold.wait(30)
        self.requests.append(ExportTraceServiceRequest.FromString(payload))
        return Outcome(Came.ACCEPTED)

    def close(self) -> None:
        return

    forget = close

    def names(self) -> Counter[tuple[str, str]]:
        """How often each scope's span of each name came."""
        return Counter(
            (scope.scope.name, span.name)
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        )


def batches(sender: Kept, **more: Any) -> SpanBatches:
    exporter = HubscopeSpanExporter(Destination("traces", "http/protobuf", "http://127.0.0.1:9/v1/traces"))
    exporter.courier = Courier("traces", exporter.courier.destination, sender, Leaving())
    return SpanBatches(exporter, Limits(**{"delay_s": 3600.0, **more}))


def provider(processor: SpanBatches, **more: Any) -> TracerProvider:
    made = TracerProvider(resource=Resource({"service.name": "app"}), shutdown_on_exit=False, **more)
    made.add_span_processor(processor)
    return made


def test_many_threads_and_scopes_lose_and_double_nothing() -> None:
    """Eight threads with two scopes each, one of them shared, while batches of 64 go out."""
    sender = Kept()
    processor = batches(sender, batch=64, queue=100_000)
    traces = provider(processor)
    count = 2_000

    def work(number: int) -> None:
        own, shared = traces.get_tracer(f"own {number}"), traces.get_tracer("shared")
        for n in range(count):
            with own.start_as_current_span(f"{n}"), shared.start_as_current_span(f"{number} {n}"):
                pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    processor.shutdown()
    expected = Counter((f"own {number}", f"{n}") for number in range(8) for n in range(count))
    expected += Counter(("shared", f"{number} {n}") for number in range(8) for n in range(count))
    assert sender.names() == expected
    assert processor.exporter.courier.counts.accepted == 2 * 8 * count
    assert max(sum(len(s.spans) for r in q.resource_spans for s in r.scope_spans) for q in sender.requests) == 64


def test_too_many_are_dropped_and_counted(caplog: Any) -> None:
    """While nothing is taken the queue keeps to its size, and the log says once which variable it grows by."""
    sender = Kept()
    sender.hold.clear()
    processor = batches(sender, batch=10, queue=30)
    tracer = provider(processor).get_tracer("app")
    for number in range(200):
        tracer.start_span(f"{number}").end()
    assert processor.dropped >= 200 - 30 - 10
    assert caplog.text.count("OTEL_BSP_MAX_QUEUE_SIZE") == 1
    sender.hold.set()
    processor.shutdown()
    assert len(sender.names()) == 200 - processor.dropped
    tracer.start_span("late").end()  # after the end it is nobody's
    assert ("app", "late") not in sender.names()


def test_an_application_that_asks_for_a_tracer_each_time_costs_no_memory() -> None:
    """3,000 tracers of one name are one scope in each request, and few of them are remembered."""
    sender = Kept()
    processor = batches(sender, queue=10_000, batch=10_000)
    traces = provider(processor)
    for _ in range(3_000):
        traces.get_tracer("app").start_span("n").end()
    assert len(processor._groups._seen) <= 1024
    assert processor.force_flush()
    [request] = sender.requests
    assert len(request.resource_spans[0].scope_spans) == 1
    assert sender.names() == {("app", "n"): 3_000}


def test_what_is_not_sampled_is_not_sent_and_starts_no_thread() -> None:
    """A provider that samples nothing has no thread of ours."""
    processor = batches(Kept())
    provider(processor, sampler=ALWAYS_OFF).get_tracer("app").start_span("n").end()
    assert processor._thread is None


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Limits(5.0, 512, 2048)),
        ({"OTEL_BSP_SCHEDULE_DELAY": "200", "OTEL_BSP_MAX_QUEUE_SIZE": "100"}, Limits(0.2, 100, 100)),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "many"}, Limits(5.0, 512, 2048)),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "0"}, Limits(5.0, 512, 2048)),
    ],
)
def test_limits(environ: dict[str, str], expected: Limits) -> None:
    """OTEL_BSP_* as the SDK reads them, where they can hold."""
    assert limits(environ) == expected
