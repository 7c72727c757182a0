"""Which exporters a process gets, and that ours needs nothing else of ours."""

from __future__ import annotations

import json

import pytest

from hubscope.instrumentation.exporter_choice import choice

OURS = {f"OTEL_{signal}_EXPORTER": "hubscope" for signal in ("TRACES", "METRICS", "LOGS")}
HTTP = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}


@pytest.mark.parametrize(
    ("said", "chosen"),
    [
        ({}, {**OURS, **HTTP}),
        ({"OTEL_TRACES_EXPORTER": "otlp_proto_grpc"}, {**OURS, **HTTP} | {"OTEL_TRACES_EXPORTER": None}),
        ({"OTEL_METRICS_EXPORTER": "none"}, {**OURS, **HTTP} | {"OTEL_METRICS_EXPORTER": None}),
        ({"OTEL_LOGS_EXPORTER": "console, otlp"}, {**OURS, **HTTP} | {"OTEL_LOGS_EXPORTER": "console,hubscope"}),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4317"}, OURS),
        ({"OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "grpc"}, OURS),
    ],
)
def test_ours_is_taken_unless_another_is_named(said: dict[str, str], chosen: dict[str, str | None]) -> None:
    """`otlp` and nothing mean ours; a name of its own is respected; HTTP only where nothing says what is spoken."""
    assert choice(said) == {name: value for name, value in chosen.items() if value is not None}


APP = """
import json, os, sys
from opentelemetry import metrics, trace
from opentelemetry._logs import get_logger
with trace.get_tracer("app").start_as_current_span("asked"): pass
metrics.get_meter("app").create_counter("counted").add(1)
get_logger("app").emit(body="said", event_name="said")
from hubscope.exporters.otlp import exporters_of
kinds = sorted({type(e).__module__ for e in exporters_of(trace.get_tracer_provider())})
heavy = ("google.protobuf", "grpc", "requests", "urllib3", "http.client", "hubscope.instrumentation.setup")
print(json.dumps([kinds, [m for m in heavy if m in sys.modules], os.environ.get("OTEL_TRACES_EXPORTER")]))
"""


def test_the_distro_s_exporters_load_nothing_heavy(run_app, exporting_to, sink):
    """Ours send all three signals; neither protobuf nor requests is loaded, and children inherit a name they know."""
    finished = run_app(APP, exporting_to(sink.endpoint))
    assert (finished.code, finished.err) == (0, "")
    kinds, heavy, said = json.loads(finished.out)
    assert kinds == ["hubscope.exporters.delivery.span_exporter"]
    assert heavy == ["hubscope.instrumentation.setup"]
    assert said == "otlp"
    assert sink.one("asked")
    assert "counted" in sink.metrics
    assert "said" in [name for name, _ in sink.events]


def test_a_stock_exporter_that_is_named_is_respected(run_app, exporting_to, sink):
    """`otlp_proto_http` is the stock exporter, under our distro too."""
    finished = run_app(APP, exporting_to(sink.endpoint, OTEL_TRACES_EXPORTER="otlp_proto_http"))
    assert json.loads(finished.out)[0] == ["opentelemetry.exporter.otlp.proto.http.trace_exporter"]
    assert sink.one("asked")


def test_ours_alone_with_the_stock_sdk(run_app, exporting_to, sink):
    """OTEL_*_EXPORTER=hubscope works under the stock distro, where nothing else of ours is set up."""
    environ = exporting_to(sink.endpoint, **OURS, OTEL_PYTHON_DISTRO="distro", OTEL_PYTHON_CONFIGURATOR="configurator")
    ours = "hubscope_sqlite3,hubscope_pluggy,hubscope_usearch,hubscope_uvicorn,hubscope_process"
    finished = run_app(APP, {**environ, "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ours})
    assert finished.code == 0
    assert finished.err.startswith("Configuration of hubscope not loaded because configurator is set")  # and no more
    assert len(finished.err.splitlines()) == 1
    assert json.loads(finished.out)[:2] == [["hubscope.exporters.delivery.span_exporter"], []]
    assert sink.one("asked")
    assert "counted" in sink.metrics
    assert [name for name, _ in sink.events] == ["said"]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_ours_alone_leaves_in_time(run_app, exporting_to, black_hole, protocol):
    """Under the stock distro too a collector that never answers keeps nobody: 1.2 s for all three signals together."""
    import time

    environ = exporting_to(
        f"http://127.0.0.1:{black_hole}",
        protocol,
        **OURS,
        OTEL_PYTHON_DISTRO="distro",
        OTEL_PYTHON_CONFIGURATOR="configurator",
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="hubscope_process",
    )
    finished = run_app(f"{APP}\nimport time\nprint(time.time())", environ)
    assert finished.code == 0, finished.err
    assert time.time() - float(finished.out.splitlines()[-1]) < 3
    assert "hubscope: " in finished.err


def test_the_exporters_count_what_became_of_everything(run_app, exporting_to, sink):
    """With OpenTelemetry's switch the counts are metrics under its names, told apart by `error.type`."""
    text = (
        "from hubscope import instrumentation as hub\n"
        "for _ in range(7):\n"
        "    with hub.task('recall'): pass\n"
        "hub.flush()\n"
        "from hubscope.exporters.delivery import courier\n"
        "next(c for c in courier._couriers if c.signal == 'traces').counts.lost = 3\n"
    )
    finished = run_app(text, exporting_to(sink.endpoint, OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED="true"))
    assert (finished.code, finished.err) == (0, "")
    points = [p for m in sink.metrics["otel.sdk.exporter.span.exported"] for p in m.sum.data_points]
    last = {next((a.value.string_value for a in p.attributes if a.key == "error.type"), ""): p.as_int for p in points}
    assert last[""] >= 7
    assert last["lost"] == 3
