"""The rules: what the plan asks for is there, and what is wrong is told at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hubscope import semconv
from hubscope.errors import ConfigError
from hubscope.processors import rules, rules_file
from hubscope.processors.targets import Target, parse_quantity, show_quantity

PLAN_METRICS = """startup.cold startup.warm startup.interactive startup.memory runtime.frame_rate runtime.response_time
runtime.memory runtime.cpu runtime.plugin_overhead memory.query_time memory.indexing_time memory.vector_search_time
memory.compression_ratio memory.cache_hit_rate ux.time_to_first_action ux.task_completion_time ux.error_rate
ux.satisfaction""".split()  # noqa: SIM905 - reads as the plan's list
# The plan's tables 3.1 to 3.4, in base units: (operator, limit).
PLAN_TARGETS = {
    "startup.cold": ("<", 3.0),
    "startup.warm": ("<", 1.0),
    "startup.first_render": ("<", 0.5),
    "startup.memory": ("<", 200 * 2**20),
    "runtime.response_time": ("<", 0.1),
    "runtime.frame_rate": (">=", 60.0),
    "runtime.memory_growth": ("<", 10 * 2**20),
    "runtime.plugin_overhead": ("<", 0.05),
    "memory.vector_search_time": ("<", 0.05),
    "memory.query_time": ("<", 0.1),
    "memory.indexing_time": ("<", 0.01),
    "memory.cache_hit_rate": (">", 0.8),
    "scale.plugins": (">=", 1000.0),
    "scale.memory_dataset": (">", 2.0**30),
    "scale.personas": (">=", 10.0),
    "scale.search_results": (">=", 10_000.0),
}


def test_all_metrics_and_targets_of_the_plan_are_there(the_rules: rules.Rules) -> None:
    """The 18 metrics of 1.1 and the 16 targets of 3.1 to 3.4 are KPIs with the plan's operators and limits."""
    names = {kpi.name for kpi in the_rules.kpis}
    assert len(PLAN_METRICS) == 18
    assert names == set(PLAN_METRICS) | set(PLAN_TARGETS)
    for name, (operator, limit) in PLAN_TARGETS.items():
        target = the_rules.kpi(name).target
        assert target is not None
        assert (target.operator, target.limit) == (operator, limit), name


def test_the_alerts_of_the_plan_are_there(the_rules: rules.Rules) -> None:
    """4.1: response time above 100 ms, memory above 500 MB."""
    found = {alert.name: (alert.kpi, alert.threshold.operator, alert.threshold.limit) for alert in the_rules.alerts}
    assert found == {
        "high_response_time": ("runtime.response_time", ">", 0.1),
        "high_memory_usage": ("runtime.memory", ">", 500 * 2**20),
    }


@pytest.mark.parametrize(
    ("resource", "tier", "permissions", "limit"),
    [
        ("memory", "premium", None, 100 * 2**20),
        ("memory", "standard", None, 50 * 2**20),
        ("memory", "", None, 50 * 2**20),
        ("memory", "gold", None, 50 * 2**20),  # the plan: whatever is not premium
        ("cpu", "premium", None, 0.3),
        ("cpu", "standard", None, 0.1),
        ("execution", "standard", None, 30.0),
        ("network", "standard", frozenset({"network"}), 2**20),
        ("network", "standard", frozenset(), 0.0),
        ("network", "standard", None, 2**20),  # it never said: it cannot be held to "none"
        ("filesystem", "premium", frozenset({"filesystem"}), 10 * 2**20),
        ("filesystem", "premium", frozenset({"network"}), 0.0),
    ],
)
def test_the_quotas_of_the_plan(
    the_rules: rules.Rules, resource: str, tier: str, permissions: frozenset[str] | None, limit: float
) -> None:
    """2.3, by tier and permission."""
    quota = the_rules.quota(resource, "any", tier, permissions)
    assert quota is not None
    assert quota.limit == limit


def test_a_record_for_one_plugin_beats_those_for_all(tmp_path: Path) -> None:
    """A quota that names the plugin holds before a glob, a glob before a tier."""
    overlay = tmp_path / "mine.toml"
    overlay.write_text(
        '[[quota]]\nname = "a"\nresource = "execution"\nplugin = "slow-*"\nlimit = "60 s"\nsource = "us"\n'
        '[[quota]]\nname = "b"\nresource = "execution"\nplugin = "slow-one"\nlimit = "90 s"\nsource = "us"\n'
    )
    mine = rules_file.load(str(overlay))
    limits = [quota.limit for id in ("other", "slow-x", "slow-one") if (quota := mine.quota("execution", id, "", None))]
    assert limits == [30.0, 60.0, 90.0]


def test_an_overlay_replaces_by_name_and_adds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HUBSCOPE_RULES: a record of the same name takes the packaged one's place, in its order; another is added."""
    overlay = tmp_path / "mine.toml"
    overlay.write_text(
        '[[kpi]]\nname = "startup.cold"\ntitle = "Ours"\nunit = "s"\nsource = "us"\nspan = "boot"\naggregate = "p50"\n'
        'target = "< 1500 ms"\nunknown = "no boot"\n'
        '[[kpi]]\nname = "ours"\ntitle = "Ours too"\nunit = "1"\nsource = "us"\nmetric = "x"\naggregate = "last"\n'
        'unknown = "no x"\n'
    )
    monkeypatch.setenv("HUBSCOPE_RULES", str(overlay))
    mine = rules_file.load()
    assert mine.kpis[0].target == Target("<", 1.5, "< 1500 ms")
    assert [kpi.name for kpi in mine.kpis][-1] == "ours"
    assert len(mine.kpis) == len(rules_file.load("").kpis) + 1


def test_every_mistake_is_told_at_once_with_its_path(tmp_path: Path) -> None:
    """One ConfigError names the file, record, field and what would be right, for every mistake."""
    overlay = tmp_path / "bad.toml"
    overlay.write_text(
        '[[kpi]]\nname = "x"\ntitle = "X"\nunit = "s"\nsource = "us"\nspan = "a"\nmetric = "b"\naggregate = "p42"\n'
        'target = "3"\nunknown = "-"\ncolour = "red"\n'
        '[[alert]]\nname = "a"\ntitle = "A"\nkpi = "nope"\nthreshold = "> 1 parsec"\nsource = "us"\n'
        '[[quota]]\nname = "q"\nresource = "cpu"\nlimit = "10 MB"\nsource = "us"\n[misspelt]\n'
    )
    with pytest.raises(ConfigError) as caught:
        rules_file.load(str(overlay))
    text = str(caught.value)
    for part in (
        "kpi[0] 'x' target: '3' does not begin with",
        "kpi[0] 'x' aggregate: must be one of p50",
        "kpi[0] 'x' span: give either span or metric",
        "kpi[0] 'x' colour: is not a field here",
        "alert[0] 'a' kpi: there is no KPI named 'nope'",
        "alert[0] 'a' threshold: unit 'parsec' is not known",
        "quota[0] 'q' limit: 'MB' cannot stand for the unit '1'",
        "quota[0] 'q' window: a share of the CPU needs a window",
        "misspelt: not known",
    ):
        assert part in text
    assert all(str(overlay) in problem for problem in caught.value.problems)


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"[[kpi"])
def test_an_unreadable_rules_file_is_one_clear_error(tmp_path: Path, content: bytes | None) -> None:
    """Missing, not text, not TOML: ConfigError names the file."""
    path = tmp_path / "rules.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"rules\.toml"):
        rules_file.load(str(path))


def test_loading_rules_imports_no_arrow() -> None:
    """The application reads rules, and must not pay for Arrow or DuckDB."""
    code = (
        "import sys; from hubscope.processors import rules_file; rules_file.load('');"
        "import hubscope.processors.sdk; sys.exit(bool({'pyarrow', 'duckdb', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_rules_name_only_what_semconv_has(the_rules: rules.Rules) -> None:
    """Each metric and attribute that a packaged feed names stands in semconv.py."""
    metrics = {metric.name for metric in semconv.METRICS}
    attributes = {attribute.name for attribute in semconv.ATTRIBUTES}
    for kpi in the_rules.kpis:
        for feed in filter(None, (*kpi.feeds, kpi.numerator, kpi.denominator, kpi.ratings)):
            assert not feed.metric or feed.metric in metrics, kpi.name
            assert feed.where.keys() <= attributes, kpi.name
            assert feed.value in {"duration", "value"} | attributes, kpi.name


def test_a_kpi_says_why_it_is_unknown(the_rules: rules.Rules) -> None:
    """Nothing received, no target, or a scale not asked for: each has a sentence; pass and fail have none."""
    cold, personas, cpu = (the_rules.kpi(name) for name in ("startup.cold", "scale.personas", "runtime.cpu"))
    assert (cold.judge(None), cold.reason(None)) == ("unknown", cold.unknown)
    assert (cold.judge(2.9), cold.judge(3.0), cold.reason(3.0)) == ("pass", "fail", "")
    assert (cpu.judge(0.5), cpu.reason(0.5)) == ("unknown", "it has no target")
    assert personas.judge(3.0) == "unknown"
    assert "only 3 personas were asked for" in personas.reason(3.0)
    assert personas.judge(10.0) == "pass"


@pytest.mark.parametrize(
    ("text", "unit", "number"),
    [
        ("3", "s", 3.0),
        ("500 ms", "s", 0.5),
        ("10 MiB/h", "By/h", 10 * 2**20),
        ("80 %", "1", 0.8),
        ("1_000", "{x}", 1e3),
    ],
)
def test_quantities(text: str, unit: str, number: float) -> None:
    """A quantity is read in the unit of its record."""
    assert parse_quantity(text, unit) == number


@pytest.mark.parametrize(
    ("text", "unit"), [("3 MB", "s"), ("x", "s"), ("3 MiB", "By/h"), ("", "s"), ("3 furlong", "s")]
)
def test_wrong_quantities_are_refused(text: str, unit: str) -> None:
    """A unit that does not fit is a sentence, not a number."""
    with pytest.raises(ValueError, match=r"unit|number"):
        parse_quantity(text, unit)


def test_quantities_are_shown_as_people_write_them() -> None:
    """With the prefix that fits, counted things in their plural, and no exponent."""
    shown = [show_quantity(*pair) for pair in ((0.012, "s"), (120 * 2**20, "By"), (0.38, "1"), (60.0, "{frame}/s"))]
    assert shown == ["12 ms", "120 MiB", "38 %", "60 frames/s"]
    counted = ((1.0, "{plugin}"), (15.0, "{plugin}"), (0.0, "{query}"), (10_000.0, "{data_point}"), (2.5, "{index}"))
    assert [show_quantity(*pair) for pair in counted] == [
        "1 plugin",
        "15 plugins",
        "0 queries",
        "10,000 data points",
        "2.5 indexes",
    ]
