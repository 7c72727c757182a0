"""`hubscope demo` as a user runs it: the five planted causes found, none on version 2, predictions beside what came."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

RUNS = 8  # of each version: enough to split one version's runs into two groups of four
HUB = "reference-hub"

# The five flags of version 1, as the detectors name what they cause.
PLANTED = {
    "--n-plus-one": ("n_plus_one", "task answer_question"),
    "--no-index": ("slow_query", "task browse_memories"),
    "--eager-import": ("slow_imports", "import scipy.stats"),
    "--slow-plugin": ("plugin_over_quota", "plugin near-duplicates enrich"),
    "--small-cache": ("low_cache_hit_rate", "cache package_profiles"),
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a whole demo left: lake, logs, report.json, report.html, stderr.txt."""
    base = tmp_path_factory.mktemp("demo")
    folder = base / "kept"
    command = [sys.executable, "-m", "hubscope.console", "demo", "--keep", str(folder), "--runs", str(RUNS)]
    with open(base / "stderr.txt", "wb") as errors, open(base / "report.json", "wb") as report:
        done = subprocess.run([*command, "--format", "json"], stdout=report, stderr=errors, env=environment(base))
    assert done.returncode == 0, (base / "stderr.txt").read_text()
    return base


def environment(base: Path) -> dict[str, str]:
    """A user's environment that points elsewhere: the demo must not send there."""
    return {
        **os.environ,
        "XDG_CACHE_HOME": str(base / "cache"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_SERVICE_NAME": "somebody-else",
        "HUBSCOPE_LAKE": str(base / "not-this-lake"),
    }


@pytest.fixture(scope="module")
def report(demo: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((demo / "report.json").read_text())
    return found


@pytest.fixture(scope="module")
def lake(demo: Path) -> Path:
    return demo / "kept" / "lake"


@pytest.mark.parametrize("flag", PLANTED)
def test_each_planted_cause_is_found_on_version_1(report: dict[str, Any], flag: str) -> None:
    """Every inefficiency stands among the findings of version 1, by its detector and operation."""
    found = {(b["detector"], b["operation"]) for b in report["bottlenecks"] if b["version"] == "1"}
    assert PLANTED[flag] in found


def test_every_database_of_the_demo_is_at_hand(report: dict[str, Any]) -> None:
    """No slow query goes without a prediction because its database was not handed over, Datasette's included."""
    assert [n for n in report["could_not_judge"] if "none of the given databases" in n["because"]] == []


@pytest.mark.parametrize("flag", PLANTED)
def test_no_planted_cause_is_found_on_version_2(report: dict[str, Any], flag: str) -> None:
    """What version 2 does not do is not found on it."""
    found = {(b["detector"], b["operation"]) for b in report["bottlenecks"] if b["version"] == "2"}
    assert PLANTED[flag] not in found


@pytest.mark.parametrize("flag", PLANTED)
def test_each_prediction_stands_beside_what_version_2_showed(report: dict[str, Any], lake: Path, flag: str) -> None:
    """A prediction was recorded on version 1 before version 2 ran, and version 2's saving stands beside it."""
    about = {b["fingerprint"] for b in report["bottlenecks"] if (b["detector"], b["operation"]) == PLANTED[flag]}
    recorded = [json.loads(line)["recommendation"] for line in (lake / "ledger.jsonl").read_text().splitlines()]
    made = {r["fingerprint"] for r in recorded if r["version"] == "1" and about & set(r["for"])}
    assert made
    entries = [e for e in report["ledger"]["entries"] if e["fingerprint"] in made and e["made_on"] == "1"]
    assert [e["observed_on"] for e in entries if e["observed"] is not None and e["observed"] > 0] == ["2"], entries


def test_the_comparison_says_what_became_better(report: dict[str, Any]) -> None:
    """Everything that the five flags slowed down is better on version 2, and no duration of the hub is worse."""
    better = {
        (c["metric"], c["dimensions"].get("operation", c["dimensions"].get("cache", "")))
        for c in report["comparisons"]
        if c["verdict"] == "better" and (c["before_group"], c["after_group"]) == ("1", "2")
    }
    for expected in (
        ("root.duration", "task answer_question"),
        ("root.duration", "task browse_memories"),
        ("startup.import_total", ""),
        ("cache.hit_rate", "package_profiles"),
    ):
        assert expected in better
    assert any(metric == "plugin.time_per_call" for metric, _ in better)
    assert [c["metric"] for c in report["comparisons"] if c["verdict"] == "worse"] == []


def test_the_same_version_twice_is_never_better_or_worse(lake: Path) -> None:
    """Eight real runs of version 2, split at random into two groups, 20 times: same or unknown in every metric."""
    from hubscope.analytics import compare, connect

    with connect(str(lake)) as engine:
        rows = engine.execute(
            "SELECT DISTINCT ServiceInstanceId FROM otel_traces WHERE ServiceName = ? AND ServiceVersion = '2'"
            " ORDER BY 1",
            [HUB],
        ).fetchall()
    runs = [str(row[0]) for row in rows]
    assert len(runs) == RUNS
    chance = random.Random(20)
    claims = []
    for _ in range(20):
        chance.shuffle(runs)
        compared = compare(str(lake), runs[: RUNS // 2], runs[RUNS // 2 :], by="instance", service=HUB)
        assert compared
        claims += [(c.metric, dict(c.dimensions), c.verdict) for c in compared if c.verdict not in ("same", "unknown")]
    assert claims == []


def test_datasette_is_reported_by_imports_queries_and_plugins(report: dict[str, Any], lake: Path) -> None:
    """An unmodified Datasette left its start with imports, its queries by shape and its plugins by hook."""
    from hubscope.analytics import connect

    assert "datasette" in report["services"]
    with connect(str(lake)) as engine:
        (imports, shapes, hooks) = engine.execute(
            "SELECT count(DISTINCT CodeNamespace), count(DISTINCT DbQuerySummary),"
            " count(DISTINCT PluginId || ' ' || PluginHook) FROM otel_traces WHERE ServiceName = 'datasette'"
        ).fetchone() or (0, 0, 0)
        plugins = {
            row[0]
            for row in engine.execute(
                "SELECT DISTINCT PluginId FROM otel_traces WHERE ServiceName = 'datasette'"
            ).fetchall()
        }
    assert imports > 5
    assert shapes > 5
    assert hooks > 2
    assert any("cluster_map" in str(plugin) or "cluster-map" in str(plugin) for plugin in plugins), plugins


def test_the_users_own_settings_are_left_alone(demo: Path) -> None:
    """Neither the user's lake nor the endpoint of the environment got anything, and the HTML report is there."""
    assert not (demo / "not-this-lake").exists()
    assert (demo / "kept" / "report.html").stat().st_size > 10_000
    said = (demo / "stderr.txt").read_text()
    assert "in all" in said
    assert str(demo / "kept" / "report.html") in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_no_process_behind(demo: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C in the middle of a run: exit code 130, and collector, applications and load are gone."""
    import psutil

    folder = tmp_path / "kept"
    log = tmp_path / "stderr.txt"
    with open(log, "wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "hubscope.console", "demo", "--keep", str(folder), "--runs", "3"],
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=environment(demo),
            preexec_fn=hear_ctrl_c,
        )
    family: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + 120
        while not any("datasette" in " ".join(command_of(child)) for child in family):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        assert process.wait(60) == 130, log.read_text()
        _, alive = psutil.wait_procs(family, timeout=20)
        assert [command_of(child) for child in alive] == []
        assert "Traceback" not in log.read_text()
    finally:
        for child in (*family, process):
            try:
                child.kill()
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue


def hear_ctrl_c() -> None:
    """In the child before it starts: a background job of a shell script ignores SIGINT, and hands that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def command_of(process: Any) -> list[str]:
    """Its command line; empty for one that has just ended."""
    import psutil

    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def test_a_folder_that_is_not_empty_is_refused(demo: Path, tmp_path: Path) -> None:
    """--keep overwrites nothing: one clear error, exit code 2."""
    (tmp_path / "mine").write_text("x")
    done = subprocess.run(
        [sys.executable, "-m", "hubscope.console", "demo", "--keep", str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment(demo),
        timeout=60,
    )
    assert done.returncode == 2
    assert "is not an empty folder" in done.stderr
    assert "Traceback" not in done.stderr
