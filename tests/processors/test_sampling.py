"""Sampling: what must stay is whole, the rest is an honest share, and every span is stored or dropped exactly once."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.collector.log.wal import Record, Signal
from hubscope.collector.otlp.decode import decode
from hubscope.lake_schema import SCHEMAS, TRACES
from hubscope.processors.batch import Batch
from hubscope.processors.consistent import (
    ALL,
    adjusted_count,
    randomness,
    threshold_in,
    threshold_of,
    with_threshold,
)
from hubscope.processors.options import ProcessorOptions, SamplingOptions
from hubscope.processors.pipeline import chain
from hubscope.processors.rules import Rules
from hubscope.processors.sampling import KEPT_SNAPSHOTS, Sampling
from hubscope.processors.sampling_marks import with_entry
from hubscope.processors.slowness import Slowness
from hubscope.processors.snapshots import Remembered

SECOND = 10**9
COUNT = "hub.sampling.adjusted_count"


@dataclass(frozen=True)
class S:
    """A span to send: of trace `trace`, with what decides about it."""

    trace: int
    failed: bool = False
    root: bool = True
    name: str = "GET /"
    duration_s: float = 0.01
    state: str = ""


def trace_id(number: int, seed: int = 0) -> bytes:
    return random.Random(f"{seed}/{number}").randbytes(16)


def batch(segment: int, spans: Iterable[S], at_s: float, seed: int = 0) -> Batch:
    """The spans as a segment that was received at `at_s`; span ids are unique."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "hub"
    scope = resource.scope_spans.add()
    for number, span in enumerate(spans):
        sent = scope.spans.add(
            trace_id=trace_id(span.trace, seed),
            span_id=(segment * 1_000_000 + number + 1).to_bytes(8, "big"),
            parent_span_id=b"" if span.root else b"p" * 8,
            name=span.name,
            trace_state=span.state,
            start_time_unix_nano=10**18,
            end_time_unix_nano=10**18 + int(span.duration_s * 1e9),
        )
        sent.attributes.add(key="n").value.int_value = number
        sent.status.code = 2 if span.failed else 1
    at_ns = 10**18 + int(at_s * 1e9)
    tables = decode([Record(Signal.TRACES, request.SerializeToString(), at_ns)])
    return Batch(segment, at_ns, tables, last_received_unix_nano=at_ns)


def rows(batches: Batch | Iterable[Batch]) -> list[dict[str, Any]]:
    found = []
    for one in [batches] if isinstance(batches, Batch) else batches:
        if TRACES in one.tables:
            assert one.tables[TRACES].schema.equals(SCHEMAS[TRACES])
            found += one.tables[TRACES].to_pylist()
    return found


def sampling(folder: Path, **options: Any) -> Remembered:
    told = SamplingOptions(**{"enabled": True, "slow_percentile": 0.0, **options})
    directory = folder / "processors"
    return Remembered(Sampling(told, directory), directory, KEPT_SNAPSHOTS, is_durable=True)


def of_trace(found: Iterable[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    return [row for row in found if row["TraceId"] == trace_id(number).hex()]


def test_a_trace_waits_for_its_decision(tmp_path: Path) -> None:
    """Nothing comes before the wait is over, everything that came within it is judged together."""
    sampler = sampling(tmp_path, ratio=0.0, wait_s=10)
    assert rows(sampler(batch(1, [S(1, root=False), S(2)], 0))) == []
    assert rows(sampler(batch(2, [S(1, failed=True)], 5))) == []
    assert rows(sampler(batch(3, [], 9.9))) == []
    found = rows(sampler(batch(4, [], 10)))
    assert sorted(row["SpanId"] for row in found) == [f"{1_000_001:016x}", f"{2_000_001:016x}"]
    assert {(row["TraceState"], dict(row["SpanAttributes"]).get(COUNT)) for row in found} == {("ot=th:0", None)}
    assert sampler.counts() == {
        "spans_kept_error": 2, "spans_dropped_share": 1, "traces_decided_early": 0
    }  # fmt: skip


def test_what_comes_late_follows_its_trace(tmp_path: Path) -> None:
    """Also an error in a trace that was dropped: half a trace is worse than none, and no count would be honest."""
    sampler = sampling(tmp_path, ratio=0.0, wait_s=1)
    sampler(batch(1, [S(1, failed=True), S(2)], 0))
    sampler(batch(2, [], 1))
    found = rows(sampler(batch(3, [S(1), S(2, failed=True)], 2)))
    assert [row["TraceId"] for row in found] == [trace_id(1).hex()]
    assert found[0]["TraceState"] == "ot=th:0"
    assert (sampler.counts()["spans_kept_late"], sampler.counts()["spans_dropped_late"]) == (1, 1)


def test_slow_starting_and_violating_traces_stay_whole(tmp_path: Path) -> None:
    """Slow by a time of its own, a start of the application, and a violation that a processor or a sender tells of."""
    sampler = sampling(tmp_path, ratio=0.0, wait_s=1, slow_s=0.5)
    spans = [
        S(1, duration_s=0.5), S(1, root=False), S(2, name="hub.startup"), S(2, root=False), S(3), S(3, root=False),
        S(4), S(5, duration_s=0.49), S(6, root=False, duration_s=0.6),
    ]  # fmt: skip
    logs = ExportLogsServiceRequest()
    told = logs.resource_logs.add().scope_logs.add().log_records.add(event_name="hub.quota.violation")
    told.trace_id = trace_id(7)
    first = batch(1, spans, 0)
    told_of = decode([Record(Signal.LOGS, logs.SerializeToString(), 1)])
    first = replace(first, tables={**first.tables, **told_of}, violating=frozenset({trace_id(3).hex()}))
    assert set(sampler(first).tables) == set(told_of)  # logs do not wait
    sampler(batch(2, [S(7)], 0.5))
    found = rows(sampler(batch(3, [], 3)))
    assert Counter(row["TraceId"] for row in found) == {
        trace_id(n).hex(): count for n, count in {1: 2, 2: 2, 3: 2, 6: 1, 7: 1}.items()
    }
    kept = {key.removeprefix("spans_kept_"): n for key, n in sampler.counts().items() if "kept" in key}
    assert kept == {"slow": 3, "startup": 2, "quota": 3}


def test_slow_for_its_operation_stays(tmp_path: Path) -> None:
    """Above the 99th percentile of its own root operation, whatever others take."""
    sampler = sampling(tmp_path, ratio=0.0, wait_s=1, slow_percentile=99.0)
    usual = [S(n, name="fast", duration_s=0.01) for n in range(200)]
    usual += [S(1000 + n, name="slow", duration_s=1.0) for n in range(200)]
    sampler(batch(1, usual, 0))
    sampler(batch(2, [S(2000, name="fast", duration_s=0.1), S(2001, name="slow", duration_s=1.0)], 2))
    assert [row["TraceId"] for row in rows(sampler(batch(3, [], 4)))] == [trace_id(2000).hex()]


@given(seed=st.integers(0, 10**6), ratio=st.sampled_from([0.05, 0.25, 0.5, 0.9]), size=st.integers(1, 4))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_adjusted_counts_are_unbiased(tmp_path_factory: Any, seed: int, ratio: float, size: int) -> None:
    """What the kept spans stand for adds up to what was sent, within 5 standard deviations of the binomial."""
    sampler = sampling(tmp_path_factory.mktemp("s"), ratio=ratio, wait_s=1)
    traces, failed = 2000, 100
    spans = [S(n, failed=n < failed, root=not k) for k in range(size) for n in range(traces + failed)]
    sampler(batch(1, spans, 0, seed))
    found = rows(sampler(batch(2, [], 2, seed)))
    by_trace = Counter(row["TraceId"] for row in found)
    assert set(by_trace.values()) == {size}  # kept traces are whole
    assert {trace_id(n, seed).hex() for n in range(failed)} <= set(by_trace)
    standing = [float(dict(row["SpanAttributes"]).get(COUNT, 1)) for row in found]
    kept = 1 - threshold_of(ratio) / ALL
    deviation = math.sqrt(traces * (1 - kept) / kept) * size
    assert abs(sum(standing) - (traces + failed) * size) <= 5 * deviation
    for row, count in zip(found, standing, strict=True):
        threshold = threshold_in(row["TraceState"])
        assert threshold is not None
        assert count == pytest.approx(adjusted_count(threshold))
        assert (dict(row["SpanAttributeTypes"]).get(COUNT) == "double") == (count != 1)
        assert dict(row["SpanAttributes"])["n"]


waits = st.lists(
    st.tuples(
        st.lists(st.builds(S, st.integers(0, 12), st.booleans(), st.booleans()), max_size=6),
        st.floats(0.0, 3.0),
    ),
    min_size=3, max_size=10,
)  # fmt: skip


@given(steps=waits, data=st.data(), bound=st.sampled_from([3, 1000]))
@settings(max_examples=30, deadline=None)
def test_deaths_change_nothing(tmp_path_factory: Any, steps: Any, data: st.DataObject, bound: int) -> None:
    """Killed and started again at any segment, up to three behind, the same spans come out in the same segments."""
    options = {"ratio": 0.5, "wait_s": 2.0, "max_traces": bound}
    at_s, segments = 0.0, []
    for number, (spans, pause_s) in enumerate(steps, start=1):
        at_s += pause_s
        segments.append(batch(number, spans, at_s))
    segments.append(batch(len(segments) + 1, [], at_s + 100))
    plain = sampling(tmp_path_factory.mktemp("plain"), **options)
    wanted = [rows(plain(segment)) for segment in segments]
    folder = tmp_path_factory.mktemp("killed")
    deaths = data.draw(st.lists(st.tuples(st.integers(1, len(segments)), st.integers(0, 3)), max_size=4))
    sampler, position, stored = sampling(folder, **options), 0, {}
    while position < len(segments):
        stored[position] = rows(sampler(segments[position]))
        position += 1
        if deaths and position == deaths[0][0]:
            sampler = sampling(folder, **options)  # a new process
            position -= min(position, deaths.pop(0)[1])
    assert [stored[number] for number in range(len(segments))] == wanted
    sent = sum(len(spans) for spans, _ in steps)
    told = plain.counts()
    assert sum(n for key, n in told.items() if key.startswith("spans")) == sent
    ids = [row["SpanId"] for found in wanted for row in found]
    assert len(ids) == len(set(ids)) == sum(n for key, n in told.items() if key.startswith("spans_kept"))


def test_it_is_bounded(tmp_path: Path) -> None:
    """Traces, bytes, decisions and files: the oldest is decided early, the oldest decision forgotten, and counted."""
    sampler = sampling(tmp_path, ratio=1.0, wait_s=1e6, max_traces=50, max_decisions=5000)
    for segment in range(1, 120):
        sampler(batch(segment, [S(segment * 1000 + n) for n in range(100)], segment))
    inner: Any = sampler.processor
    assert inner.waiting == 50
    assert sampler.counts()["traces_decided_early"] == 119 * 100 - 50
    assert len(inner._decided) <= 5000 + 4096
    files = [path.name for path in (tmp_path / "processors").iterdir()]
    assert len(files) < 40, files
    sizes = sampling(tmp_path / "sizes", ratio=1.0, wait_s=1e6, max_size_bytes=60_000)
    for segment in range(1, 40):
        sizes(batch(segment, [S(segment * 1000 + n) for n in range(100)], segment))
    on_disk = sum(chunk.size_bytes for chunk in sizes.processor._chunks.values())  # type: ignore[attr-defined]
    assert 0 < on_disk <= 60_000


def test_spans_are_read_from_their_files_where_memory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not held in memory comes out the same."""
    monkeypatch.setattr("hubscope.processors.sampling.TABLES_SIZE_BYTES", 0)
    sampler = sampling(tmp_path, ratio=1.0, wait_s=1)
    sampler(batch(1, [S(n) for n in range(50)], 0))
    assert len(rows(sampler(batch(2, [], 2)))) == 50


def test_switched_off_it_gives_back_what_waits(tmp_path: Path, the_rules: Rules) -> None:
    """The next start without sampling stores what was waiting, as it was sent, and samples nothing."""
    sampler = sampling(tmp_path, ratio=0.0, wait_s=1e6)
    sampler(batch(1, [S(n) for n in range(50)], 0))
    [*_, last] = chain(the_rules, tmp_path).batches
    found = rows(last(batch(2, [S(100)], 1)))
    assert len(found) == 51
    assert {row["TraceState"] for row in found} == {""}
    assert all(not isinstance(p, Remembered) or p.name != "sampling" for p in chain(the_rules, None).batches)


def test_a_lost_file_is_said_and_the_rest_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the disk lost what waited of one segment, the others' spans still come."""
    sampler = sampling(tmp_path, ratio=1.0, wait_s=10)
    sampler(batch(1, [S(1)], 0))
    sampler(batch(2, [S(2)], 1))
    next((tmp_path / "processors").glob("sampling-spans-*1.arrow")).write_bytes(b"torn")
    found = rows(sampling(tmp_path, ratio=1.0, wait_s=10)(batch(3, [], 100)))
    assert [row["TraceId"] for row in found] == [trace_id(2).hex()]
    assert "what sampling kept of segment 1 cannot be read" in caplog.text


def test_a_share_of_a_share_says_so(tmp_path: Path) -> None:
    """Spans that an application sampled already keep the higher threshold, and stand for as many as both made of it."""
    half, high = threshold_of(0.5), f"{ALL - 1:014x}"
    sampler = sampling(tmp_path, ratio=0.25, wait_s=1)
    states = {1: f"ot=th:8;rv:{high},x=y", 2: f"ot=rv:{high}", 3: f"a=b,ot=th:f;rv:{high}", 4: f"ot=th:f;rv:{'0' * 14}"}
    spans = [S(n, state=state, failed=n == 4) for n, state in states.items()]
    sampler(batch(1, spans, 0))
    found = {row["TraceId"]: row for row in rows(sampler(batch(2, [], 2)))}
    told = {n: found[trace_id(n).hex()] for n in states}
    assert {n: row["TraceState"] for n, row in told.items()} == {
        1: f"ot=th:c;rv:{high},x=y", 2: f"ot=rv:{high};th:c", 3: f"ot=th:f;rv:{high},a=b", 4: f"ot=th:0;rv:{'0' * 14}",
    }  # fmt: skip
    counts = {n: dict(row["SpanAttributes"]).get(COUNT) for n, row in told.items()}
    assert counts == {1: "4", 2: "4", 3: "16", 4: None}
    assert half == 1 << 55


@given(st.floats(0.0, 1.0))
def test_thresholds_are_those_of_the_specification(ratio: float) -> None:
    """A written threshold reads as itself, and is the ratio to four digits after its leading f's."""
    threshold = threshold_of(ratio)
    if threshold == ALL:
        assert ratio < 2**-50
        return
    assert threshold_in(with_threshold("k=v,ot=rv:0123456789abcd", threshold)) == threshold
    assert 1 / adjusted_count(threshold) == pytest.approx(ratio, rel=2**-12, abs=2**-54)  # of 56 bits
    assert (threshold_of(1.0), threshold_of(0.1)) == (0, 0xE6660000000000)
    assert randomness("0" * 18 + "123456789abcde") == 0x123456789ABCDE
    assert randomness("nothing") is None


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "k"]), st.text("xyz"), max_size=3), min_size=1), st.data())
def test_an_entry_is_added_to_some_maps(maps: list[dict[str, str]], data: st.DataObject) -> None:
    """Of any maps, also a slice of them, the chosen ones get the entry, in the place of one of the same key."""
    chosen = data.draw(st.lists(st.booleans(), min_size=len(maps), max_size=len(maps)))
    kind = SCHEMAS[TRACES].field("SpanAttributes").type
    column = pa.array([list({"z": "0"}.items()), *(list(m.items()) for m in maps)], kind)[1:]
    import numpy as np

    texts = pa.array([f"t{n}" for n in range(len(maps))])
    found = with_entry(column, "k", texts, np.array(chosen)).to_pylist()
    wanted = [{**m, "k": f"t{n}"} if add else m for n, (m, add) in enumerate(zip(maps, chosen, strict=True))]
    assert [dict(pairs) for pairs in found] == wanted


def test_what_is_usual_survives_a_restart() -> None:
    """The percentiles of root operations are the same after their snapshot was read back."""
    usual = Slowness(0.95)
    durations = [random.Random(n).lognormvariate(0, 1) for n in range(500)]
    for number, duration_s in enumerate(durations):
        usual.is_slow(("hub", "GET /"), duration_s, number * SECOND)
    again = Slowness(0.95)
    again.restore(json.loads(json.dumps(usual.snapshot())))
    more: Sequence[float] = [random.Random(-n).lognormvariate(0, 2) for n in range(300)]
    told = [[s.is_slow(("hub", "GET /"), d, (500 + n) * SECOND) for n, d in enumerate(more)] for s in (usual, again)]
    assert told[0] == told[1]
    assert 20 < sum(told[0]) < 150
    assert not any(Slowness(0.0).is_slow(("hub", "x"), d, 0) for d in more)


def test_what_is_derived_has_seen_every_span(
    application: Any, call: Any, plugin_call: Any, the_rules: Rules, tmp_path: Path
) -> None:
    """KPIs, violations and overhead are the same with sampling as without, though no ordinary span stays."""
    app = application()
    work = [call("task t", n, 0.03 * n, {"hub.task.name": "t"}, children=[plugin_call(0.01, n)]) for n in range(20)]
    arrived = replace(app.batch(app.run([*work, plugin_call(31.0, 1, "p2")])), segment=1)
    told = ProcessorOptions(sampling=SamplingOptions(enabled=True, ratio=0.0, slow_percentile=0.0))
    plain, sampled = arrived, arrived
    for processor in chain(the_rules, None).batches:
        plain = processor(plain)
    sampling_chain = chain(the_rules, tmp_path, told)
    for processor in sampling_chain.batches:
        sampled = processor(sampled)
    assert {name: rows.to_pylist() for name, rows in sampled.derived.items()} == {
        name: rows.to_pylist() for name, rows in plain.derived.items()
    }
    assert TRACES not in sampled.tables
    late = sampling_chain.batches[-1](batch(2, [], 10**7))
    assert {row["PluginId"] for row in rows(late)} == {"p2"}  # the trace of the violation
