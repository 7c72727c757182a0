"""The report and the trace as frozen objects: exactly the JSON that scripts hold on to.

Field names are the JSON's names (`for_` is written `for`, a Python keyword). Durations are seconds; a value that is
not known is None with a reason beside it, never 0. The JSON Schemas stand beside this file in `schema/`, and a test
holds both to each other and every report to them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any, Final

SCHEMA_VERSION: Final = 1

# Orders used for sorting and for rendering, worst first.
SEVERITIES: Final = ("critical", "high", "medium", "low")
STATES: Final = ("open", "unconfirmed", "resolved")  # of findings and recommendations, as they are listed


def _plain(value: Any) -> Any:
    """`value` as JSON-ready dicts, lists and scalars; a field's trailing underscore is dropped."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name.rstrip("_"): _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


class _Json:
    def to_dict(self) -> dict[str, Any]:
        """The object as plain dicts and lists, ready for `json.dumps`."""
        plain: dict[str, Any] = _plain(self)
        return plain

    def to_json(self, indent: int | None = 2) -> str:
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)


def _rate(seconds: float | None, observed_s: float | None, per_day: float | None) -> float:
    if seconds is not None and observed_s:
        return seconds / observed_s
    return (per_day or 0.0) / 86_400


@dataclasses.dataclass(frozen=True)
class Window(_Json):
    """What the report looked at: RFC 3339 times, None where the lake holds nothing."""

    start: str | None
    end: str | None


@dataclasses.dataclass(frozen=True)
class Run(_Json):
    """One run of a service: the unit of every statistic. An instance that ran two versions has two."""

    id: str  # service.instance.id; '' where the service sends none
    service: str
    version: str | None
    start: str
    end: str
    spans: int


@dataclasses.dataclass(frozen=True)
class RunValue(_Json):
    """One point of a sparkline or trend: the value of one run, in the metric's unit."""

    run: str  # Run.id
    version: str | None
    start: str
    value: float


@dataclasses.dataclass(frozen=True)
class Kpi(_Json):
    """One KPI against its target. `value` is the median over runs of each run's own aggregate (say, its p95).

    `low` and `high` are a 95 % interval for it; None where fewer than two runs (or samples) allow none.
    """

    name: str
    unit: str
    target: str | None  # as kpis.toml writes it: "< 3"
    value: float | None
    low: float | None
    high: float | None
    runs: int
    samples: int
    status: str  # pass | fail | unknown
    reason: str  # why, in one sentence: never empty
    service: str | None = None
    aggregate: str = ""  # p95, median, ratio, …
    severity: str = "medium"
    source: str = ""  # where the target comes from
    points: tuple[RunValue, ...] = ()  # oldest run first


@dataclasses.dataclass(frozen=True)
class Summary(_Json):
    """The verdict in a sentence, and how many KPIs passed, failed or could not be judged."""

    verdict: str
    passed: int
    failed: int
    undetermined: int
    kpis: tuple[Kpi, ...]


@dataclasses.dataclass(frozen=True)
class Trend(_Json):
    """A slow drift over runs, or within long runs. `slope` is in `unit` (say, "s/day" or "By/h")."""

    metric: str
    dimensions: Mapping[str, str]
    slope: float | None
    low: float | None
    high: float | None
    unit: str
    points: int
    verdict: str  # rising | falling | flat | unknown
    change_points: tuple[str, ...] = ()  # RFC 3339 start of the run at which the level changed
    reason: str = ""
    values: tuple[RunValue, ...] = ()


@dataclasses.dataclass(frozen=True)
class Impact(_Json):
    """What a finding costs, in seconds."""

    seconds_per_day: float | None  # time lost a day at the observed rate; None where `reason` says why
    share_of_kpi: float | None  # 0..1 of the KPI's measured value; None where no KPI is concerned
    kpi: str | None
    observed_seconds: float | None = None  # time lost while it was observed
    observed_for_seconds: float | None = None  # for how long that was, summed over runs
    reason: str = ""  # why seconds_per_day is None

    @property
    def rate(self) -> float:
        """Seconds lost for each second observed; 0 where it is not known. What findings are ordered by."""
        return _rate(self.observed_seconds, self.observed_for_seconds, self.seconds_per_day)


@dataclasses.dataclass(frozen=True)
class Evidence(_Json):
    """Where to look: the operation that suffered, what caused it, and what took the time."""

    trace_id: str
    parent_span_ids: tuple[str, ...]
    cause_span_ids: tuple[str, ...]
    offender_span_ids: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Bottleneck(_Json):
    """One finding. The fingerprint names detector, service and operation and nothing that changes from run to run."""

    fingerprint: str
    detector: str
    severity: str  # critical | high | medium | low
    service: str
    operation: str
    sentence: str
    impact: Impact
    evidence: tuple[Evidence, ...]  # worst first
    version: str | None = None  # the version it was found on
    status: str = "open"  # open | unconfirmed (a later version does not show it, nor that its cause changed) | resolved
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # the figures behind the sentence
    also: tuple[str, ...] = ()  # fingerprints that parts of it would have alone: one query in several operations

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """All it answers to. What was said of a part when it stood alone is said of it."""
        return (self.fingerprint, *self.also)


@dataclasses.dataclass(frozen=True)
class Predicted(_Json):
    """What the change would save. `now`, `then`, `saving`, `low`, `high` are in `unit`; low..high is a 90 % range.

    Without a range it is an estimate from one run, which the ledger does not keep: nobody knows how far runs differ.
    """

    metric: str
    unit: str
    now: float
    then: float
    saving: float
    low: float | None
    high: float | None
    method: str
    dimensions: Mapping[str, str] = dataclasses.field(default_factory=dict)  # which series of `metric`
    saving_seconds_per_day: float | None = None  # at the observed rate; None where the reason says why
    saving_observed_seconds: float | None = None  # what it would have saved while it was observed
    observed_for_seconds: float | None = None  # for how long that was, summed over runs
    saving_per_day_reason: str = ""  # why saving_seconds_per_day is None

    @property
    def rate(self) -> float:
        """Seconds saved for each second observed; 0 where it is not known. What recommendations are ranked by."""
        return _rate(self.saving_observed_seconds, self.observed_for_seconds, self.saving_seconds_per_day)


@dataclasses.dataclass(frozen=True)
class Recommendation(_Json):
    """One change and what it is predicted to save; `for_` are the fingerprints of the findings it mends."""

    fingerprint: str
    for_: tuple[str, ...]
    change: str
    where: str
    predicted: Predicted
    verify: str
    service: str | None = None
    version: str | None = None  # the version it was predicted on
    status: str = "open"  # as its findings; of several, the first of STATES


@dataclasses.dataclass(frozen=True)
class Comparison(_Json):
    """One metric in two groups of runs. `change`, `low`, `high` are relative (0.10 is 10 % more), as is the
    minimum detectable effect; all None where there are too few runs."""

    metric: str
    dimensions: Mapping[str, str]
    before: float | None
    after: float | None
    change: float | None
    low: float | None
    high: float | None
    verdict: str  # better | worse | same | unknown; new | gone: an operation that only one side has
    minimum_detectable_effect: float | None
    runs_before: int
    runs_after: int
    unit: str = "s"
    reason: str = ""
    p_value: float | None = None  # after Benjamini-Hochberg over the whole report
    before_group: str = ""  # the version, or the runs
    after_group: str = ""
    contribution_s: float | None = None  # what the change is worth, per root operation or start; ranks the list


COARSEST_EFFECT: Final = 10.0  # a minimum detectable effect above 1,000 % is a figure nobody can use


def detectable(effect: float) -> str:
    """What runs with that minimum detectable effect would have shown, for people."""
    if effect > COARSEST_EFFECT:
        return "these runs are too few or too uneven to show a change"
    return f"these runs would show {effect:.0%} and more"


@dataclasses.dataclass(frozen=True)
class LedgerEntry(_Json):
    """One prediction, and what a later version showed."""

    fingerprint: str
    service: str
    change: str
    metric: str
    dimensions: Mapping[str, str]
    unit: str
    made_on: str | None  # version
    predicted: float  # saving
    predicted_low: float
    predicted_high: float
    observed_on: str | None
    observed: float | None
    observed_low: float | None
    observed_high: float | None
    covered: bool | None  # predicted range and observed value agree; None while not observed
    reason: str  # why it counts as observed, or why not yet


@dataclasses.dataclass(frozen=True)
class Ledger(_Json):
    """Predictions beside what was observed. The mean error is a share, over the observed ones; None while none is."""

    predictions: int
    observed: int
    covered: int
    mean_absolute_percentage_error: float | None
    entries: tuple[LedgerEntry, ...] = ()


@dataclasses.dataclass(frozen=True)
class Checked(_Json):
    """Something that was looked at and is fine, with the figure that says so."""

    what: str
    because: str


@dataclasses.dataclass(frozen=True)
class NotJudged(_Json):
    """Something that was looked at and could not be judged, with what was lacking."""

    what: str
    because: str
    for_: tuple[str, ...] = ()  # fingerprints of the findings whose saving could not be predicted


@dataclasses.dataclass(frozen=True)
class SpanEvent(_Json):
    """An event of a span, as the lake has it."""

    name: str
    time_unix_nano: int
    attributes: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class SpanLink(_Json):
    """A link of a span to another, perhaps of another trace."""

    trace_id: str
    span_id: str
    attributes: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class SpanStatus(_Json):
    """A span's status, as OpenTelemetry names it."""

    code: str  # Unset | Ok | Error
    message: str


@dataclasses.dataclass(frozen=True)
class TraceSpan(_Json):
    """One span. `self_time` is its time outside its children, `exclusive_critical_time` its own part of the critical
    path, both in seconds."""

    span_id: str
    parent_span_id: str
    name: str
    service: str
    kind: str
    start_unix_nano: int
    end_unix_nano: int
    self_time: float
    exclusive_critical_time: float
    attributes: Mapping[str, str]
    events: tuple[SpanEvent, ...]
    links: tuple[SpanLink, ...]
    status: SpanStatus


@dataclasses.dataclass(frozen=True)
class Segment(_Json):
    """A stretch of the critical path that one span is to blame for."""

    span_id: str
    start_unix_nano: int
    end_unix_nano: int


@dataclasses.dataclass(frozen=True)
class Trace(_Json):
    """One trace. Spans in tree order (a parent, then its children by start); critical-path segments in time order,
    without overlap, summing to the root's duration."""

    trace_id: str
    service: str
    root: str
    duration: float
    complete: bool
    problems: tuple[str, ...]
    spans: tuple[TraceSpan, ...]
    critical_path: tuple[Segment, ...]
    spans_left_out: int = 0  # spans of the trace that are not listed here (a report lists the largest)

    def _repr_html_(self) -> str:
        from hubscope.analytics.render import html

        return html.embed_trace(self)


@dataclasses.dataclass(frozen=True)
class TimeRow(_Json):
    """What one thing took, over all runs of a version. Times in seconds."""

    name: str  # a query's shape, an index, a plugin, a root operation
    detail: str  # a query's text (one of its shape, the first 300 characters), a plugin's hook, an index's type; or ''
    calls: int
    total: float
    median: float
    p95: float
    share: float  # 0..1 of the total of its list


@dataclasses.dataclass(frozen=True)
class TimeList(_Json):
    """What took most, dearest first, and the rest as sums: rows and others together are everything."""

    rows: tuple[TimeRow, ...]
    calls: int  # of all, also those not listed
    total: float
    others: int = 0  # things not listed
    others_calls: int = 0
    others_total: float = 0.0


@dataclasses.dataclass(frozen=True)
class PhaseTime(_Json):
    """A start-up phase: the median over starts, and its share of the start (0..1)."""

    phase: str
    duration: float
    share: float


@dataclasses.dataclass(frozen=True)
class ImportTime(_Json):
    """One top-level package that the application imports (or a module in no package), medians over the starts.

    `cumulative` is the time of its imports that stand in no other import of it, with the packages they bring: the
    figures of two packages overlap where one imports the other. `self_time` is that of its modules alone, without the
    imports recorded below them; it adds up. A package that hubscope or the launcher loaded first (argparse, say) is not
    listed: the application did not wait for it.
    """

    module: str
    self_time: float
    cumulative: float
    used_before_interactive: bool | None  # None: not known, or not the same in all starts
    modules: int = 1  # of the package that were recorded
    imported_by: tuple[str, ...] = ()  # the packages that bring it; empty: the application imports it itself


@dataclasses.dataclass(frozen=True)
class StartupTime(_Json):
    """Where the starts' time went. Durations are medians over starts, in seconds."""

    starts: int
    type: str  # cold | warm | "cold, warm" | ''
    ended_by: str  # what ended it: interactive, first_request, … ; "exit" where none became interactive
    duration: float
    phases: tuple[PhaseTime, ...]  # the longest first; one may lie inside another
    imports: tuple[ImportTime, ...]  # packages, by cumulative time
    imports_total: float  # self time of all recorded packages
    imports_others: int = 0  # packages not listed
    imports_others_self_time: float = 0.0


@dataclasses.dataclass(frozen=True)
class Breakdown(_Json):
    """Where the time goes in the newest version of one service.

    Lists overlap: a query runs inside an operation, and may be called by a plugin.
    """

    service: str
    version: str | None
    runs: int
    observed_for_seconds: float  # the runs' lengths summed
    startup: StartupTime | None
    operations: TimeList  # root operations, the start left out
    queries: TimeList  # by shape
    vector_searches: TimeList  # by index
    plugins: TimeList  # by plugin and hook


@dataclasses.dataclass(frozen=True)
class Report(_Json):
    """Everything that analytics knows about a lake within a window."""

    schema_version: int
    generated_at: str
    window: Window
    services: tuple[str, ...]
    summary: Summary
    trends: tuple[Trend, ...]
    bottlenecks: tuple[Bottleneck, ...]
    recommendations: tuple[Recommendation, ...]
    comparisons: tuple[Comparison, ...]
    ledger: Ledger
    checked_and_fine: tuple[Checked, ...]
    could_not_judge: tuple[NotJudged, ...]
    runs: tuple[Run, ...] = ()
    traces: tuple[Trace, ...] = ()  # the worst trace of each finding, for the waterfall
    lake: str = ""  # where the data came from, as it was given
    breakdown: tuple[Breakdown, ...] = ()  # where the time goes, one entry a service

    def trace(self, trace_id: str) -> Trace | None:
        """The trace of that id, if the report carries it."""
        return next((t for t in self.traces if t.trace_id == trace_id), None)

    def _repr_html_(self) -> str:
        from hubscope.analytics.render import html

        return html.embed_report(self)


def first_state(states: Iterable[str], otherwise: str) -> str:
    """The first of STATES among these: what is open in one place is open."""
    return min(states, key=STATES.index, default=otherwise)


def json_schema(name: str) -> dict[str, Any]:
    """The shipped JSON Schema: `report` or `trace`."""
    text = resources.files("hubscope.analytics").joinpath("schema", f"{name}.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
