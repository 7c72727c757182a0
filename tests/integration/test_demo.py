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


@pytest.mark.parametrize("flag", PLANTED)
def test_each_planted_cause_is_found_on_version_1(report: dict[str, Any], flag: str) -> None:
    """Every inefficiency stands among the findings of version 1, by its detector and operation."""
    found = {(b["detector"], b["operation"]) for b in report["bottlenecks"] if b["version"] == "1"}
    assert PLANTED[flag] in found


@pytest.mark.parametrize("flag", PLANTED)
def test_no_planted_cause_is_found_on_version_2(report: dict[str, Any], flag: str) -> None:
    """What version 2 does not do is not found on it."""
    found = {(b["detector"], b["operation"]) for b in report["bottlenecks"] if b["version"] == "2"}
    assert PLANTED[flag] not in found


@pytest.mark.parametrize("flag", PLANTED)
def test_each_prediction_stands_beside_what_version_2_showed(report: dict[str, Any], flag: str) -> None:
    """A prediction was recorded on version 1 before version 2 ran, and has an observation."""
    fingerprints = {b["fingerprint"] for b in report["bottlenecks"] if (b["detector"], b["operation"]) == PLANTED[flag]}
    lines = [json.loads(line) for line in ledger_lines(report)]
    made = {r["fingerprint"] for r in lines if r["version"] == "1" and fingerprints & set(r["for"])}
    assert made
    entries = [e for e in report["ledger"]["entries"] if e["fingerprint"] in made]
    assert any(e["observed"] is not None and e["observed_on"] == "2" for e in entries), entries


def ledger_lines(report: dict[str, Any]) -> list[str]:
    lake = Path(os.environ["HUBSCOPE_TEST_DEMO_LAKE"])
    return [json.dumps(json.loads(line)["recommendation"]) for line in (lake / "ledger.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True, scope="module")
def _where_the_lake_is(demo: Path) -> Any:
    os.environ["HUBSCOPE_TEST_DEMO_LAKE"] = str(demo / "kept" / "lake")
    yield
    del os.environ["HUBSCOPE_TEST_DEMO_LAKE"]
