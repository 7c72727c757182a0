"""/metrics/kpis: the text against Prometheus' own parsers, the figures against counting, and a running collector."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from hubscope.collector.log.wal import Record, Signal
from hubscope.collector.scrape.answer import OPENMETRICS_FILE, PLAIN_FILE, _takes_gzip
from hubscope.collector.scrape.durations import MAX_SERIES, OTHER
from hubscope.collector.scrape.exposition import Exemplar, Family, Sample, text, wants_openmetrics
from hubscope.collector.scrape.kpi_page import MAX_KPIS, KpiPage
from hubscope.collector.segments import batch_of
from hubscope.lake_schema import GAUGE
from hubscope.processors import rows
from hubscope.processors.batch import Batch
from hubscope.processors.pipeline import chain
from hubscope.processors.rules_file import load

SECOND = 10**9
NOW = 1_700_000_000 * SECOND
PLUGIN = "hubscope_plugin_call_duration_seconds"
QUERY = "hubscope_query_duration_seconds"
STARTUP = "hubscope_startup_duration_seconds"


def attributes_of(holder: Any, **values: Any) -> None:
    for key, value in values.items():
        kind = "string_value" if isinstance(value, str) else "double_value"
        setattr(holder.attributes.add(key=key.replace("__", ".")).value, kind, value)


class Spans:
    """A request, a span at a time. Ids tell the spans apart."""

    def __init__(self, service: str = "hub", version: str = "1.2") -> None:
        self.request = ExportTraceServiceRequest()
        above = self.request.resource_spans.add()
        attributes_of(above.resource, service__name=service, service__version=version)
        self._spans = above.scope_spans.add().spans
        self.count = 0

    def add(self, name: str, seconds: float, state: str = "", **attributes: Any) -> str:
        """Its trace id."""
        self.count += 1
        trace_id = self.count.to_bytes(16)
        span = self._spans.add(
            name=name,
            trace_id=trace_id,
            span_id=self.count.to_bytes(8),
            kind=1,
            trace_state=state,
            start_time_unix_nano=NOW,
            end_time_unix_nano=NOW + round(seconds * SECOND),
        )
        attributes_of(span, **attributes)
        return trace_id.hex()

    def batch(self, segment: int = 1) -> Batch:
        record = Record(Signal.TRACES, self.request.SerializeToString(), NOW + SECOND)
        return batch_of(segment, [record], chain(load(None), None))


def pages(page: KpiPage, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both files, parsed by Prometheus' own parsers: family name -> family."""
    page.write(folder)
    openmetrics = {f.name: f for f in parse_openmetrics((folder / OPENMETRICS_FILE).read_text())}
    plain = {f.name: f for f in parse_plain((folder / PLAIN_FILE).read_text())}
    return openmetrics, plain


def buckets(family: Any, **labels: str) -> dict[str, float]:
    """le -> count of the series with these labels."""
    return {
        s.labels["le"]: s.value
        for s in family.samples
        if s.name.endswith("_bucket") and all(s.labels[k] == v for k, v in labels.items())
    }


def test_durations_count_and_show_a_span(tmp_path: Path) -> None:
    """Each kind's buckets hold what counting says, and each exemplar is a span that fell into its bucket."""
    spans = Spans()
    calls = {0.00005: 3, 0.0001: 1, 0.05: 4, 99.0: 2}
    traces: dict[float, set[str]] = {}
    for seconds, times in calls.items():
        for _ in range(times):
            traces.setdefault(seconds, set()).add(spans.add("plugin p render", seconds, hub__plugin__id="p"))
    spans.add("SELECT t", 0.002, db__system__name="sqlite", db__query__summary="SELECT t #1")
    spans.add("search docs", 0.002, db__system__name="usearch")
    cold = spans.add("hub.startup", 2.5, hub__startup__type="cold")
    spans.add("hub.startup", 0.9, hub__startup__type="warm")
    spans.add("GET /", 7.0)
    page = KpiPage()
    page.note(spans.batch())
    openmetrics, plain = pages(page, tmp_path)
    for families in (openmetrics, plain):
        found = buckets(families[PLUGIN], plugin="p", service="hub", version="1.2")
        assert {le: n for le, n in found.items() if le in ("0.0001", "0.025", "0.05", "10.0", "+Inf")} == {
            "0.0001": 4, "0.025": 4, "0.05": 8, "10.0": 8, "+Inf": 10,
        }  # fmt: skip
        sums = {s.name: s.value for s in families[PLUGIN].samples if s.labels.get("le") is None}
        assert sums[f"{PLUGIN}_count"] == 10
        assert sums[f"{PLUGIN}_sum"] == pytest.approx(sum(seconds * n for seconds, n in calls.items()))
        assert {s.labels["query"] for s in families[QUERY].samples} == {"SELECT t #1", "search docs"}
        assert buckets(families[STARTUP], type="cold")["3.0"] == buckets(families[STARTUP], type="warm")["1.0"] == 1
    shown = {s.labels["le"]: s.exemplar for s in openmetrics[PLUGIN].samples if s.exemplar}
    assert set(shown) == {"0.0001", "0.05", "+Inf"}
    assert shown["0.0001"].labels["trace_id"] in traces[0.00005] | traces[0.0001]
    assert shown["0.05"].labels["trace_id"] in traces[0.05]
    assert (shown["+Inf"].value, float(shown["+Inf"].timestamp)) == (99.0, NOW / 1e9 + 99.0)
    (start,) = [s.exemplar for s in openmetrics[STARTUP].samples if s.exemplar and s.labels["type"] == "cold"]
    assert start.labels == {"trace_id": cold, "span_id": cold[16:]}
    assert not any(s.exemplar for family in plain.values() for s in family.samples)


def test_kpis_and_violations_are_told(tmp_path: Path) -> None:
    """KPI values have their labels and when their last sample came, violations a count and the call that showed one."""
    spans = Spans()
    start = spans.add("hub.startup", 2.0, hub__startup__type="cold", hub__startup__end="interactive")
    slow = spans.add("plugin p render", 40.0, hub__plugin__id="p", hub__plugin__tier="standard", hub__plugin__hook="r")
    page = KpiPage()
    page.note(spans.batch())
    openmetrics, plain = pages(page, tmp_path)
    for families in (openmetrics, plain):
        found = {s.labels["kpi"]: s for s in families["hubscope_kpi"].samples}
        cold = found["startup.cold"]
        assert cold.value == pytest.approx(2.0, rel=0.05)
        assert cold.labels == {
            "service": "hub", "version": "1.2", "kpi": "startup.cold", "aggregate": "p95", "unit": "s",
            "target": "< 3", "status": "pass",
        }  # fmt: skip
        times = {s.labels["kpi"]: s.value for s in families["hubscope_kpi_updated_seconds"].samples}
        assert times["startup.cold"] == NOW / 1e9 + 2.0
        (violation,) = families["hubscope_quota_violations"].samples
        assert violation.name == "hubscope_quota_violations_total"
        assert (violation.value, violation.labels["plugin"], violation.labels["resource"]) == (1, "p", "execution")
    (violation,) = openmetrics["hubscope_quota_violations"].samples
    assert violation.exemplar.labels["trace_id"] == slow != start
    assert {kpi["name"] for kpi in page.status()} >= {"startup.cold"}


def test_what_was_sampled_counts_for_what_it_stands_for(tmp_path: Path) -> None:
    """A threshold in the trace state makes a span count for those that were left out; other states change nothing."""
    spans = Spans()
    for state in ("", "vendor=th:8", "ot=th:c", "ot=rv:ffffffffffffff;th:8,x=y", "ot=th:0"):
        spans.add("plugin p r", 0.05, state, hub__plugin__id="p")
    page = KpiPage()
    page.note(spans.batch())
    openmetrics, _ = pages(page, tmp_path)
    assert buckets(openmetrics[PLUGIN])["+Inf"] == 1 + 1 + 4 + 2 + 1


def test_the_page_is_bounded_and_loses_no_count(tmp_path: Path) -> None:
    """A thousand plugins are a hundred series and one for the others; KPIs make room for those that came last."""
    spans = Spans()
    for number in range(1000):
        spans.add("plugin x r", 0.05, hub__plugin__id=f"p{number}")
    page = KpiPage()
    page.note(spans.batch())
    found = [
        rows.gauge(
            "hub.kpi.value", "s", f"s{number}", [("service.name", f"s{number}")], {"hub.kpi.name": "k"}, 0, NOW, 1.0
        )
        for number in range(MAX_KPIS + 10)
    ]
    page.note(Batch(2, NOW, {}, {GAUGE: rows.table(GAUGE, found)}))
    openmetrics, _ = pages(page, tmp_path)
    counts = {s.labels["plugin"]: s.value for s in openmetrics[PLUGIN].samples if s.name.endswith("_count")}
    assert len(counts) == MAX_SERIES + 1
    assert (sum(counts.values()), counts[OTHER]) == (1000, 1000 - MAX_SERIES)
    assert len(openmetrics["hubscope_kpi"].samples) == MAX_KPIS
    assert openmetrics["hubscope_kpi"].samples[-1].labels["service"] == f"s{MAX_KPIS + 9}"
    assert (tmp_path / OPENMETRICS_FILE).stat().st_size < 2_000_000


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(texts, texts, st.floats(), st.text("0123456789abcdef", min_size=32, max_size=32))
def test_whatever_a_label_holds_is_read_back(label: str, brief: str, value: float, trace_id: str) -> None:
    """Quotes, backslashes, line breaks, other scripts, NaN and infinities survive both formats."""
    exemplar = Exemplar(trace_id, trace_id[:16], 1.5, 1.25)
    families = [
        Family("a", "gauge", "", brief, [Sample("", (("x", label),), value)]),
        Family("b_seconds", "histogram", "seconds", brief, [
            Sample("_bucket", (("x", label), ("le", "1.0")), 1, exemplar),
            Sample("_bucket", (("x", label), ("le", "+Inf")), 1),
            Sample("_count", (("x", label),), 1),
            Sample("_sum", (("x", label),), 0.5),
        ]),
    ]  # fmt: skip
    for parse, openmetrics in ((parse_openmetrics, True), (parse_plain, False)):
        first, second = parse(text(families, openmetrics))
        assert first.samples[0].labels == {"x": label}
        assert repr(first.samples[0].value) == repr(value)
        assert second.samples[0].labels == {"x": label, "le": "1.0"}
        if openmetrics:
            assert second.samples[0].exemplar.labels == {"trace_id": trace_id, "span_id": trace_id[:16]}


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        # Prometheus 2.42 and 3
        ("application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
         "text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
        ("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.4", True),
        ("text/plain;q=0.9, application/openmetrics-text;q=0.3", False),
        ("application/openmetrics-text;q=0", False),
        ("APPLICATION/OpenMetrics-Text ; Q=1", True),
        ("application/openmetrics-text;q=nonsense", False),
    ],
)  # fmt: skip
def test_the_format_is_what_is_asked_for(accept: str, openmetrics: bool) -> None:
    """OpenMetrics where it is named and weighs no less than plain text."""
    assert wants_openmetrics(accept) is openmetrics


@pytest.mark.parametrize(
    ("header", "taken"), [("", False), ("gzip", True), ("br, GZIP;q=0.5", True), ("gzip;q=0", False), ("*", True)]
)
def test_gzip_is_sent_to_who_takes_it(header: str, taken: bool) -> None:
    """By Accept-Encoding, weight 0 is a no."""
    assert _takes_gzip(header) is taken


def test_a_running_collector_answers(new_collector: Callable[..., Any]) -> None:
    """Over HTTP: both formats by Accept, gzip if asked, promtool content, and /metrics stays what it was."""
    collector = new_collector()
    collector.start()
    spans = Spans()
    trace = spans.add("plugin p render", 0.05, hub__plugin__id="p")
    now = time.time_ns()
    for span in spans.request.resource_spans[0].scope_spans[0].spans:
        span.start_time_unix_nano, span.end_time_unix_nano = now, now + SECOND // 20
    body, headers = spans.request.SerializeToString(), {"Content-Type": "application/x-protobuf"}
    assert httpx.post(f"http://{collector.addresses['http']}/v1/traces", content=body, headers=headers).is_success
    url = f"http://{collector.addresses['telemetry']}/metrics/kpis"

    def answered(**headers: str) -> httpx.Response:
        return httpx.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()}, timeout=20)

    collector.wait_for(lambda: PLUGIN in answered().text, "the call is told")
    plain = answered(accept="text/plain", accept_encoding="gzip")
    assert plain.headers["content-encoding"] == "gzip"
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert {f.name for f in parse_plain(plain.text)} >= {PLUGIN, "hubscope_kpi"}
    asked = answered(accept="application/openmetrics-text; version=1.0.0", accept_encoding="identity")
    assert asked.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert "content-encoding" not in asked.headers
    families = {f.name: f for f in parse_openmetrics(asked.text)}
    assert [s.exemplar.labels["trace_id"] for s in families[PLUGIN].samples if s.exemplar] == [trace]
    assert httpx.get(url.removesuffix("/kpis")).text.count("hubscope_kpi") == 0
    promtool = shutil.which("promtool")
    if promtool:
        done = subprocess.run([promtool, "check", "metrics"], input=plain.text, capture_output=True, text=True)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert collector.stop() == 0
