"""Enrichment: a resource gets what its sender left out, where the sender can only be on this machine."""

from __future__ import annotations

import socket
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.collector.log.wal import Record, Signal
from hubscope.collector.otlp.decode import decode_arriving
from hubscope.processors.enrichment import added, host
from hubscope.processors.options import EnrichmentOptions

keys = st.sampled_from(["host.name", "os.type", "service.name", "team", "service.version"])


@given(st.lists(st.dictionaries(keys, st.text("abc", min_size=1)), min_size=1, max_size=4), st.dictionaries(keys, keys))
@settings(max_examples=60, deadline=None)
def test_only_what_is_absent_is_added(resources: list[dict[str, str]], more: dict[str, str]) -> None:
    """Every resource ends with its own attributes and those added ones whose key it had not; hot columns follow."""
    request = ExportTraceServiceRequest()
    for attributes in resources:
        resource = request.resource_spans.add()
        resource.scope_spans.add().spans.add(name="s")
        for key, text in attributes.items():
            resource.resource.attributes.add(key=key).value.string_value = text
    record = Record(Signal.TRACES, request.SerializeToString(), 1)
    decoded = decode_arriving([record], (), tuple(more.items()))
    rows: list[dict[str, Any]] = decoded.tables["otel_traces"].to_pylist()
    for row, attributes in zip(rows, resources, strict=True):
        wanted = {**more, **attributes}
        assert dict(row["ResourceAttributes"]) == wanted
        assert row["ServiceName"] == wanted.get("service.name", "")
        assert row["ServiceVersion"] == wanted.get("service.version")
        assert row["ResourceDroppedAttributesCount"] == 0
    assert not decoded.changed  # what is forwarded is what was sent


def test_logs_and_metrics_get_them_too() -> None:
    """The three signals of one application name the same machine."""
    logs, metrics = ExportLogsServiceRequest(), ExportMetricsServiceRequest()
    logs.resource_logs.add().scope_logs.add().log_records.add()
    metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="m").gauge.data_points.add(as_int=1)
    records = [Record(Signal.LOGS, logs.SerializeToString(), 1), Record(Signal.METRICS, metrics.SerializeToString(), 1)]
    for table in decode_arriving(records, (), (("host.name", "here"),)).tables.values():
        assert table["ResourceAttributes"].to_pylist() == [[("host.name", "here")]]


def test_this_machine_is_named_for_local_senders_only() -> None:
    """What is configured holds for everybody, and comes before what is detected."""
    assert host()["host.name"] == socket.gethostname()
    assert host()["os.type"] in ("linux", "darwin", "windows")
    told = EnrichmentOptions(host=True, attributes=(("deployment.environment.name", "test"), ("host.name", "told")))
    assert dict(added(told, True)) == {**host(), "deployment.environment.name": "test", "host.name": "told"}
    assert dict(added(told, False)) == dict(told.attributes)
    assert added(EnrichmentOptions(), True) == ()
