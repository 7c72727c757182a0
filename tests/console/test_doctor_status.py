"""`hubscope doctor` and `hubscope status`: each contradiction with its remedy; the lake in figures."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from click.testing import Result

from hubscope.collector.log import dead_letter
from hubscope.collector.log.wal import Record, Signal
from hubscope.console import checks, lake_checks
from hubscope.console.checks import FAIL, OK, WARN

Hubscope = Callable[..., Result]


@pytest.fixture
def listener() -> Iterator[int]:
    """A port on which something listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


def states(environ: dict[str, str]) -> dict[str, tuple[str, str]]:
    return {check.what: (check.state, check.detail + " " + check.remedy) for check in checks.environment(environ)}


def test_a_clean_environment_is_fine() -> None:
    """Nothing set, nothing said but that."""
    assert states({"PATH": "/bin"}) == {"environment": (OK, "nothing contradicts itself ")}


@pytest.mark.parametrize(
    ("environ", "what", "state", "words"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, "OTEL_SDK_DISABLED", WARN, "unset"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "OTEL_TRACES_EXPORTER", WARN, "sends no traces"),
        ({"OTEL_PYTHON_DISTRO": "distro"}, "OTEL_PYTHON_DISTRO", WARN, "hubscope run"),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, "OTEL_TRACES_SAMPLER", FAIL, "no trace"),
        (
            {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"},
            "OTEL_TRACES_SAMPLER", WARN, "0.1",
        ),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=a,oops"}, "OTEL_RESOURCE_ATTRIBUTES", FAIL, "oops"),
        ({"HUBSCOPE_LAEK": "/x"}, "HUBSCOPE_LAEK", WARN, "did you mean HUBSCOPE_LAKE"),
        ({"HUBSCOPE_RULES": "/no/such/file"}, "HUBSCOPE_RULES", FAIL, "/no/such/file"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "smoke", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:1"},
         "OTEL_EXPORTER_OTLP_PROTOCOL", FAIL, "smoke"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "htp://x"}, "OTEL_EXPORTER_OTLP_ENDPOINT", FAIL, "scheme htp"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1"}, "OTEL_EXPORTER_OTLP_ENDPOINT", FAIL, "no URL"),
    ],
)  # fmt: skip
def test_contradictions_are_found(environ: dict[str, str], what: str, state: str, words: str) -> None:
    """Each contradiction is named by its variable, judged, and has its way out."""
    found = states(environ)
    assert found[what][0] == state
    assert words in found[what][1]


def test_endpoints_are_tried(listener: int) -> None:
    """An endpoint that answers is not mentioned; one that does not, or doubles its path, is."""
    name = "OTEL_EXPORTER_OTLP_ENDPOINT"
    assert name not in states({name: f"http://127.0.0.1:{listener}"})
    doubled = states({name: f"http://127.0.0.1:{listener}/v1/traces", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"})
    assert f"{name}=http://127.0.0.1:{listener}" in doubled[name][1]
    bare = states({name: f"127.0.0.1:{listener}", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"})
    assert "no scheme" in bare[name][1]
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    assert "nothing answers" in states({name: f"http://127.0.0.1:{port}"})[name][1]


def test_a_protocol_on_the_other_ones_port_is_a_contradiction() -> None:
    """gRPC to 4318 cannot work, and both ways to mend it are said."""
    checked = next(iter(checks._endpoint("E", "http://192.0.2.1:4318", "grpc", is_base=True)))
    assert checked.state == FAIL
    assert "http/protobuf" in checked.detail
    assert "port 4317" in checked.remedy


def test_the_installation_is_checked_against_its_own_requirements() -> None:
    """Here everything is installed, so every group is complete."""
    found = list(checks.packages())
    assert [check.state for check in found] == [OK] * 4, found


@pytest.mark.parametrize(("free_mib", "state"), [(255, FAIL), (256, WARN), (2303, WARN), (2304, OK)])
def test_a_disk_is_full_where_the_collector_stops(
    free_mib: int, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails below what the collector leaves free, and is warned of while the log could grow down to that."""
    monkeypatch.setattr(lake_checks.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free_mib * 2**20))
    found = {check.what: check.state for check in lake_checks.lake(str(tmp_path))}
    assert found["disk"] == state


def test_the_log_and_dead_letters_are_counted(tmp_path: Path) -> None:
    """Segments that nobody writes and dead letters are warnings with what to do."""
    state = tmp_path / ".state"
    (state / "wal").mkdir(parents=True)
    (state / "dead-letter").mkdir()
    assert [c.state for c in (*lake_checks.backlog(str(tmp_path)), *lake_checks.dead_letters(str(tmp_path)))] == [
        OK,
        OK,
    ]
    (state / "wal" / "0000000000000001.wal").write_bytes(b"x" * 100)
    dead_letter.set_aside(state, 1, 0, Record(Signal.TRACES, b"x", 1), "no OTLP")
    backlog, dead = next(lake_checks.backlog(str(tmp_path))), next(lake_checks.dead_letters(str(tmp_path)))
    assert backlog.state == WARN
    assert f"hubscope collect --lake {tmp_path}" in backlog.remedy
    assert backlog.detail.startswith("1 segment, ")
    assert (dead.state, dead.detail.split()[0]) == (WARN, "1")


def test_what_waits_for_a_destination_does_not_wait_for_the_lake(hubscope: Hubscope, lake: Path) -> None:
    """30 segments that are in the lake and not at Jaeger are told as that, by doctor and by status."""
    state = lake / ".state"
    for folder in ("wal", "cursors"):
        (state / folder).mkdir(parents=True)
    for number in range(1, 31):
        (state / "wal" / f"{number:016d}.wal").write_bytes(b"x")
    for name, at in (("lake", 30), ("jaeger", 0), ("tempo", 30), ("gone", 0)):
        (state / "cursors" / name).write_text(f"{at}\n")
    (state / "worker.json").write_text(json.dumps({"exporters": {"lake": {}, "jaeger": {}, "tempo": {}}}))

    log, forwarding = lake_checks.backlog(str(lake))
    assert (log.state, log.detail) == (OK, "nothing waits to be written")
    assert (forwarding.what, forwarding.state) == ("forwarding", WARN)
    assert forwarding.detail.startswith("30 segments in the log wait for jaeger")
    found = json.loads(hubscope("status", "--lake", lake, "--format", "json").stdout)
    assert (found["log_segments_waiting"], found["forwards_waiting"]) == (0, {"jaeger": 30})
    text = hubscope("status", "--lake", lake).stdout
    assert "not in the lake" not in text
    assert "30 segments not at jaeger yet" in text

    (state / "cursors" / "lake").write_text("28\n")  # the near miss: two of them are not in the lake either
    assert next(lake_checks.backlog(str(lake))).detail.startswith("2 segments")
    assert json.loads(hubscope("status", "--lake", lake, "--format", "json").stdout)["log_segments_waiting"] == 2


@pytest.mark.parametrize("reused", [True, False])
def test_a_pid_that_was_given_to_another_process_is_no_collector(reused: bool, tmp_path: Path) -> None:
    """A collector.json older than the process of its pid was left behind by a collector that was killed."""
    state = tmp_path / ".state"
    state.mkdir()
    record = state / "collector.json"
    record.write_text(json.dumps({"pid": os.getpid(), "addresses": {"telemetry": "127.0.0.1:1"}}))
    if reused:
        before_s = psutil.Process().create_time() - 60
        os.utime(record, (before_s, before_s))
    found = next(lake_checks.collector(str(tmp_path)))
    assert (found.state, "none is running" in found.detail) == ((OK, True) if reused else (FAIL, False))


@pytest.mark.parametrize(
    ("lake_error", "state", "words"),
    [("", WARN, "writes its lake, but not all gets to a destination: there: 401"), ("disk", FAIL, "cannot write it")],
)
def test_a_destination_that_refuses_is_not_a_lake_that_cannot_be_written(
    lake_error: str, state: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Doctor tells the two apart, and names no log file where the collector has none."""
    (tmp_path / ".state").mkdir()
    record = {"pid": os.getpid(), "addresses": {"telemetry": "127.0.0.1:1"}}
    (tmp_path / ".state/collector.json").write_text(json.dumps(record))
    answer = {
        "status": "degraded",
        "ready": True,
        "reason": lake_error or "there: 401 Unauthorized",
        "worker": {"alive": True},
        "exporters": {"lake": {"last_error": lake_error}, "there": {"last_error": "401"}},
    }
    monkeypatch.setattr(lake_checks, "health", lambda *_: answer)  # the collector's tests make the answer
    found = next(lake_checks.collector(str(tmp_path)))
    assert found.state == state
    assert words in found.detail
    assert "collector.log" not in found.remedy


def test_doctor_answers_in_both_forms(hubscope: Hubscope, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set-up with something wrong exits 1; text and JSON say the same; every problem has a remedy."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    result = hubscope("doctor", "--lake", lake, "--format", "json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert all(check["remedy"] for check in found if check["state"] != OK)
    assert any(check["what"] == "lake" and "84 spans" in check["detail"] for check in found)
    text = hubscope("doctor", "--lake", lake)
    assert text.exit_code == 1
    assert all(check["detail"] in text.stdout for check in found if check["what"] != "disk")


def test_a_damaged_lake_is_wrong(hubscope: Hubscope, tmp_path: Path) -> None:
    """A lake whose log cannot be read is a failure with a remedy, not a traceback."""
    log = tmp_path / "lake" / "otel_traces" / "_delta_log"
    log.mkdir(parents=True)
    (log / "00000000000000000000.json").write_text("{ broken")
    result = hubscope("doctor", "--lake", tmp_path / "lake")
    assert result.exit_code == 1
    assert "✗ lake" in result.stdout
    assert hubscope("status", "--lake", tmp_path / "lake").exit_code == 4


def test_a_lake_that_is_a_file_is_wrong(hubscope: Hubscope, tmp_path: Path) -> None:
    """A path that is a file is said to be one."""
    (tmp_path / "lake").write_text("hello")
    result = hubscope("doctor", "--lake", tmp_path / "lake")
    assert result.exit_code == 1
    assert "is a file, not a folder" in result.stdout


def test_status_counts_what_is_there(hubscope: Hubscope, lake: Path) -> None:
    """Tables, rows, files, services, versions and runs are those of the lake."""
    found = json.loads(hubscope("status", "--lake", lake, "--format", "json").stdout)
    traces = next(table for table in found["tables"] if table["name"] == "otel_traces")
    assert traces["rows"] == 6 * 14
    assert traces["files"] == 1
    assert traces["size_bytes"] > 1000
    assert found["services"] == [
        {
            "name": "reference-hub",
            "versions": ["1", "2"],
            "runs": 6,
            "spans": 84,
            "newest": found["services"][0]["newest"],
        }
    ]
    assert found["collector"] is None
    text = hubscope("status", "--lake", lake).stdout
    for expected in ("reference-hub", "otel_traces", "not running", "84"):
        assert expected in text


def test_status_without_a_lake(hubscope: Hubscope, tmp_path: Path) -> None:
    """No lake is exit 4, and how to fill one."""
    result = hubscope("status", "--lake", tmp_path / "none")
    assert result.exit_code == 4
    assert "hubscope run" in result.stderr


def test_values_that_cannot_be_used_are_named() -> None:
    """A number that is none is one to look at, an unknown name is wrong; each with what to do about it."""
    found = states(
        {
            "OTEL_BSP_SCHEDULE_DELAY": "soon",
            "HUBSCOPE_IMPORT_THRESHOLD_MS": "-1",
            "OTEL_TRACES_SAMPLER": "always_onn",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "smoke",
            "OTEL_PROPAGATORS": "tracecontext,b4",
        }
    )
    assert {name: state for name, (state, _) in found.items()} == {
        "OTEL_BSP_SCHEDULE_DELAY": WARN,
        "HUBSCOPE_IMPORT_THRESHOLD_MS": WARN,
        "OTEL_TRACES_SAMPLER": FAIL,
        "OTEL_EXPORTER_OTLP_PROTOCOL": FAIL,
        "OTEL_PROPAGATORS": FAIL,
    }
    assert "did you mean always_on?" in found["OTEL_TRACES_SAMPLER"][1]
    assert "one of grpc, http/protobuf, http/json" in found["OTEL_EXPORTER_OTLP_PROTOCOL"][1]
    assert states({"OTEL_BSP_SCHEDULE_DELAY": "500", "OTEL_TRACES_SAMPLER": "always_on"}).keys() == {"environment"}
