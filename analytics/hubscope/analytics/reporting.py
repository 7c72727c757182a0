"""The report: everything analytics knows about a lake within a window, as one object. Deterministic, but for its date.

Each version's runs are looked at for themselves. Findings of the newest version are open. One that only an older
version shows is resolved where its cause was seen to be changed, else unconfirmed; both stand after the open ones.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from hubscope.analytics import breakdown, comparisons, kpis, ledger, shown, trends
from hubscope.analytics.connect import DEFAULT_MEMORY_LIMIT, connect, hold_small_tables
from hubscope.analytics.detectors import DETECTORS, regression, slow_imports, slow_phase
from hubscope.analytics.engine import ANY, Engine
from hubscope.analytics.findings import Outcome, counted, duration
from hubscope.analytics.model import (
    SCHEMA_VERSION,
    SEVERITIES,
    STATES,
    Bottleneck,
    Checked,
    Comparison,
    Kpi,
    Ledger,
    NotJudged,
    Recommendation,
    Report,
    Summary,
    Trace,
    Window,
    first_state,
)
from hubscope.analytics.recommend import RECOMMENDERS, Case
from hubscope.analytics.scope import Data, RunInfo, Scope, rfc3339
from hubscope.analytics.statistics import EQUIVALENCE_MARGIN, MIN_RUNS
from hubscope.analytics.traces import build_trace, shortened
from hubscope.errors import ConfigError, LakeError
from hubscope.processors import rules_file

# A report carries the worst trace of each finding, for its waterfall: the largest spans of so many traces.
TRACES: Final = 12
SPANS_A_TRACE: Final = 150

# Window bounds that nothing lies outside of.
BEGINNING_NS: Final = -(2**62)
END_NS: Final = 2**62

Moment = datetime | int | None  # aware datetime, or nanoseconds since 1970


def report(
    lake: str | os.PathLike[str],
    service: str | None = None,
    since: Moment = None,
    until: Moment = None,
    databases: Sequence[str | os.PathLike[str]] = (),
    *,
    rules: str | None = None,
    memory_limit: str = DEFAULT_MEMORY_LIMIT,
    threads: int | None = None,
) -> Report:
    """The report on `service` (all when None) within [since, until).

    `databases`: SQLite files in which index and batching recommendations may be timed; they are opened read-only and
    indexes are tried on a copy. `rules`: a TOML file laid over the packaged KPIs and quotas.
    Writes the predictions it makes to `<lake>/ledger.jsonl`.
    Raises LakeError (no lake, unreadable, no such service) and ConfigError (rules, window, a database that is no file).
    """
    location = os.fspath(lake)
    paths = _database_paths(databases)
    data = _data(location, since, until, rules, memory_limit, threads)
    try:
        return _report(location, data, service, paths)
    finally:
        data.engine.connection.close()


def compare(
    lake: str | os.PathLike[str],
    before: str | Sequence[str],
    after: str | Sequence[str],
    by: str = "version",
    *,
    service: str | None = None,
    since: Moment = None,
    until: Moment = None,
    rules: str | None = None,
    memory_limit: str = DEFAULT_MEMORY_LIMIT,
    threads: int | None = None,
) -> tuple[Comparison, ...]:
    """Two versions (`by="version"`), or two groups of runs by their ids (`by="instance"`: comma-separated or a list).

    Raises ConfigError for another `by`, LakeError for a version or run that the lake does not hold.
    """
    if by not in ("version", "instance"):
        raise ConfigError(f"runs cannot be grouped by {by!r}", 'by is "version" or "instance"')
    data = _data(os.fspath(lake), since, until, rules, memory_limit, threads)
    try:
        runs = data.runs(service)

        def named(run: RunInfo) -> set[str]:
            """What a group may call the run by. Its id says one version of an instance that has run several."""
            return {run.version} if by == "version" else {run.instance, run.id}

        pairs = []
        old, new = (_wanted(group) for group in (before, after))
        for name in sorted({run.service for run in runs}):
            mine = [run for run in runs if run.service == name]
            a = tuple(run for run in mine if named(run) & set(old))
            b = tuple(run for run in mine if named(run) & set(new))
            if a and b:
                pairs.append((Scope(data, name, ", ".join(old), a), Scope(data, name, ", ".join(new), b)))
        if not pairs:
            known = sorted({run.version if by == "version" else run.instance or run.id for run in runs} - {""})
            raise LakeError(
                f"no service of the lake has runs of both {', '.join(old)} and {', '.join(new)}",
                f"the lake holds {by}s: {', '.join(known[:20]) or 'none'}",
            )
        return comparisons.compare_groups(pairs)
    finally:
        data.engine.connection.close()


def _wanted(group: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(group.split(",")) if isinstance(group, str) else tuple(group)


def _data(
    location: str, since: Moment, until: Moment, rules: str | None, memory_limit: str, threads: int | None
) -> Data:
    loaded = rules_file.load(rules)
    start, end = _ns(since, BEGINNING_NS), _ns(until, END_NS)
    if start >= end:
        raise ConfigError("the window ends before it begins", "give a --since that lies before --until")
    connection = connect(location, memory_limit=memory_limit, threads=threads)
    hold_small_tables(connection)
    return Data(Engine(connection), loaded, start, end)


def _ns(moment: Moment, otherwise: int) -> int:
    if moment is None:
        return otherwise
    if isinstance(moment, int):
        return moment
    if moment.tzinfo is None:
        raise ConfigError(f"{moment} has no time zone", "give an aware datetime: datetime.now(timezone.utc)")
    return int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1000


def _database_paths(databases: Sequence[str | os.PathLike[str]]) -> tuple[Path, ...]:
    paths = tuple(Path(database) for database in databases)
    problems = tuple(f"{path}: there is no such file" for path in paths if not path.is_file())
    if problems:
        raise ConfigError("a database to look into is missing", "give the path of an SQLite file", problems)
    return paths


def _report(location: str, data: Data, service: str | None, databases: tuple[Path, ...]) -> Report:
    runs = data.runs(service)
    if service is not None and not runs:
        known = sorted({run.service for run in data.runs()})
        logs = _log_records(data, service)
        raise LakeError(
            f"the lake holds no span and no metric of service {service!r} in this window{f', {logs}' if logs else ''}",
            f"it holds: {', '.join(repr(name) for name in known)}" if known else "it holds no span in this window",
        )
    versions = {
        name: [Scope(data, name, version, members) for version, members in data.versions(name).items()]
        for name in sorted({run.service for run in runs})
    }
    newest = [scopes[-1] for scopes in versions.values()]
    values = kpis.all_of(newest, data.rules.kpis)

    pairs = [(scopes[-2], scopes[-1]) for scopes in versions.values() if len(scopes) >= 2]
    compared = comparisons.compare_groups(pairs)

    outcomes = {(scope.service, scope.name): _detect(scope) for scopes in versions.values() for scope in scopes}
    for before, after in pairs:
        # A comparison does not name its service; a group that two services share must not lend it to both.
        mine = compared if len(pairs) == 1 else comparisons.compare_groups([(before, after)])
        had = {f for o in outcomes[before.service, before.name] for b in o.findings for f in b.fingerprints}
        here = [b for o in outcomes[after.service, after.name] for b in o.findings]
        new = [b for b in here if had.isdisjoint(b.fingerprints)]
        outcomes[after.service, after.name].append(regression.detect(before, after, mine, new))
    found = {key: tuple(f for o in parts for f in o.findings) for key, parts in outcomes.items()}
    path = ledger.path_of(location)
    earlier = {(r.fingerprint, r.version): r for r in (ledger.read(path) if path else ())}
    recommended, unpredicted = _recommend(versions, found, databases, earlier.values())
    if path is not None and recommended:
        ledger.add(path, recommended)
    everything = {
        **earlier,
        **{
            (r.fingerprint, r.version): r
            for r in recommended
            if ledger.is_prediction(r) and (r.fingerprint, r.version) not in earlier
        },
    }
    settled = ledger.settle(
        [r for r in everything.values() if service is None or r.service == service], versions, found
    )
    bottlenecks = _ordered(found, versions, everything.values(), settled)
    states = {fingerprint: b.status for b in bottlenecks for fingerprint in b.fingerprints}
    recommended = _of_the_shown(recommended, bottlenecks, versions)
    recommendations = sorted(
        (
            dataclasses.replace(r, status=first_state((states[f] for f in r.for_ if f in states), "unconfirmed"))
            for r in recommended
        ),
        key=lambda r: (
            STATES.index(r.status),
            -r.predicted.rate,
            r.fingerprint,
            r.version or "",
        ),
    )
    drifts = tuple(trend for scope in newest for trend in trends.detect(scope))
    return Report(
        schema_version=SCHEMA_VERSION,
        generated_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        window=_window(data, runs),
        services=tuple(versions),
        summary=_summary(values, bottlenecks, compared, runs, _log_records(data, service)),
        trends=drifts,
        bottlenecks=bottlenecks,
        recommendations=tuple(recommendations),
        comparisons=compared,
        ledger=settled,
        checked_and_fine=_fine(outcomes, newest, compared),
        could_not_judge=_not_judged(
            outcomes, newest, _said_of_the_shown(unpredicted, bottlenecks), values, compared, versions, path
        ),
        runs=tuple(run.to_model() for run in runs if not run.is_worker),
        traces=_traces(data, bottlenecks),
        lake=location,
        breakdown=tuple(breakdown.of(scope) for scope in newest),
    )


def _detect(scope: Scope) -> list[Outcome]:
    return [detector(scope) for detector in DETECTORS]


def _ordered(
    found: dict[tuple[str, str], tuple[Bottleneck, ...]],
    versions: dict[str, list[Scope]],
    predicted: Iterable[Recommendation],
    settled: Ledger,
) -> tuple[Bottleneck, ...]:
    """Worst first: open before unconfirmed before resolved, then by severity, then by the rate at which it loses time.
    One entry a finding: the newest version that shows any part of it."""
    latest: list[Bottleneck] = []
    for findings in found.values():  # versions oldest first
        again = {fingerprint for finding in findings for fingerprint in finding.fingerprints}
        latest = [
            *(old for old in latest if again.isdisjoint(old.fingerprints)),
            # Of one version the last counts: a phase may be slow in cold and in warm starts.
            *{f.fingerprint: f for f in findings}.values(),
        ]
    came_true = {(e.fingerprint, e.made_on) for e in settled.entries if e.observed is not None}
    mended = {(f, r.version) for r in predicted if (r.fingerprint, r.version) in came_true for f in r.for_}

    def status(finding: Bottleneck) -> str:
        scopes = {scope.name: scope for scope in versions[finding.service]}
        before, now = scopes[finding.version or ""], versions[finding.service][-1]
        if before is now:
            return "open"
        is_mended = any((f, finding.version) in mended for f in finding.fingerprints)
        return "resolved" if is_mended or shown.mended(finding, before, now) else "unconfirmed"

    return tuple(
        sorted(
            (dataclasses.replace(finding, status=status(finding)) for finding in latest),
            key=lambda b: (
                STATES.index(b.status),
                SEVERITIES.index(b.severity),
                -b.impact.rate,
                b.fingerprint,
            ),
        )
    )


def _of_the_shown(
    made: Sequence[Recommendation], bottlenecks: Sequence[Bottleneck], versions: Mapping[str, Sequence[Scope]]
) -> list[Recommendation]:
    """One recommendation a cause: that of the version whose finding is shown, so that evidence and saving agree.

    What was predicted on the versions before stands in the ledger.
    """
    shown_on = {fingerprint: b.version for b in bottlenecks for fingerprint in b.fingerprints}
    place = {(name, scope.name or None): i for name, scopes in versions.items() for i, scope in enumerate(scopes)}
    kept: list[Recommendation] = []
    newer: dict[str, str | None] = {}  # fingerprint -> the version that answers it
    for r in sorted(made, key=lambda r: -place.get((r.service or "", r.version), -1)):
        is_told = all(newer.get(f, r.version) == r.version for f in r.for_)
        if is_told and any(f in shown_on and shown_on[f] == r.version for f in r.for_):
            kept.append(r)
            newer.update(dict.fromkeys(r.for_, r.version))
    return kept


def _said_of_the_shown(
    unpredicted: Sequence[tuple[str | None, NotJudged]], bottlenecks: Sequence[Bottleneck]
) -> list[NotJudged]:
    """Why nothing was predicted, of the version whose finding is shown."""
    shown_on = {fingerprint: b.version for b in bottlenecks for fingerprint in b.fingerprints}
    return [said for version, said in unpredicted if not said.for_ or version in {shown_on.get(f) for f in said.for_}]


def _recommend(
    versions: dict[str, list[Scope]],
    found: dict[tuple[str, str], tuple[Bottleneck, ...]],
    databases: tuple[Path, ...],
    earlier: Iterable[Recommendation],
) -> tuple[list[Recommendation], list[tuple[str | None, NotJudged]]]:
    """Recommendations for every version's findings. What was predicted stands: once a later version has run, what the
    ledger holds for a finding is repeated, not made anew."""
    recorded = list(earlier)
    made: list[Recommendation] = []
    unpredicted: list[tuple[str | None, NotJudged]] = []
    for scopes in versions.values():
        for scope in scopes:
            findings = found[scope.service, scope.name]
            old = [
                r
                for r in recorded
                if r.service == scope.service
                and (r.version or "") == scope.name
                and {fingerprint for f in findings for fingerprint in f.fingerprints} & set(r.for_)
                and scope is not scopes[-1]
            ]
            made.extend(old)
            answered = {fingerprint for r in old for fingerprint in r.for_}
            case = Case(scope, tuple(f for f in findings if answered.isdisjoint(f.fingerprints)), databases)
            for recommender in RECOMMENDERS:
                advice = recommender(case)
                made.extend(advice.recommendations)
                unpredicted.extend((scope.name or None, said) for said in advice.not_judged)
    return made, unpredicted


def _window(data: Data, runs: Sequence[RunInfo]) -> Window:
    first = data.since_ns if data.since_ns != BEGINNING_NS else min((r.first_ns for r in runs), default=None)
    last = data.until_ns if data.until_ns != END_NS else max((r.last_ns for r in runs), default=None)
    return Window(rfc3339(first) if first is not None else None, rfc3339(last) if last is not None else None)


def _log_records(data: Data, service: str | None) -> str:
    """`only 3 log records of hub`, for a window without anything else; '' where there are none."""
    rows = data.rows("log_records", service=ANY if service is None else service)
    if not rows:
        return ""
    names = ", ".join(row["service"] or "no named service" for row in rows)
    return f"only {counted(sum(row['n'] for row in rows), 'log record')} of {names}"


def _summary(
    values: tuple[Kpi, ...],
    bottlenecks: Sequence[Bottleneck],
    compared: Sequence[Comparison],
    runs: Sequence[RunInfo],
    logs: str,
) -> Summary:
    passed = sum(kpi.status == "pass" for kpi in values)
    failed = [kpi for kpi in values if kpi.status == "fail"]
    open_ones = [b for b in bottlenecks if b.status == "open"]
    worse = sum(c.verdict == "worse" for c in compared)
    better = sum(c.verdict == "better" for c in compared)
    if not runs:
        verdict = f"There is nothing to judge: no span and no metric lies in this window{f', {logs}' if logs else ''}."
    else:
        judged = passed + len(failed)
        targets = (
            f"{passed} of {judged} targets that could be judged are met" if judged else "no target could be judged"
        )
        names = list(dict.fromkeys(kpi.name for kpi in failed))
        missed = f"; missed: {', '.join(names[:4])}{' and others' if len(names) > 4 else ''}" if failed else ""
        causes = f"{counted(len(open_ones), 'cause')} found" if open_ones else "no cause of slowness found"
        if not any(run.spans for run in runs):
            causes = "no span was received, so no cause could be looked for"
        verdict = f"{targets[0].upper()}{targets[1:]}{missed}; {causes}"
        if compared:
            verdict += f"; against the version before {counted(better, 'metric')} became better and {worse} worse"
        verdict += "."
    return Summary(verdict, passed, len(failed), len(values) - passed - len(failed), values)


def _fine(
    outcomes: dict[tuple[str, str], list[Outcome]], newest: Sequence[Scope], compared: Sequence[Comparison]
) -> tuple[Checked, ...]:
    many = len(newest) > 1
    found = [
        Checked(f"{scope.service}: {c.what}" if many else c.what, c.because)
        for scope in newest
        for outcome in outcomes[scope.service, scope.name]
        for c in outcome.fine
    ]
    same = [c for c in compared if c.verdict == "same"]
    if same:
        found.append(Checked(counted(len(same), "compared metric"), f"the same within ±{EQUIVALENCE_MARGIN:.0%}"))
    return tuple(found)


def _not_judged(
    outcomes: dict[tuple[str, str], list[Outcome]],
    newest: Sequence[Scope],
    unpredicted: Sequence[NotJudged],
    values: Sequence[Kpi],
    compared: Sequence[Comparison],
    versions: dict[str, list[Scope]],
    path: Path | None,
) -> tuple[NotJudged, ...]:
    found = [NotJudged(f"KPI {kpi.name}", kpi.reason) for kpi in values if kpi.status == "unknown" and kpi.target]
    found += [n for scope in newest for outcome in outcomes[scope.service, scope.name] for n in outcome.not_judged]
    found += _unexplained_starts(outcomes, newest, values)
    found += unpredicted
    for name, scopes in versions.items():
        if not any(run.spans for scope in scopes for run in scope.runs):
            why = "only metrics of it were received; starts, queries and plugins are read from spans"
            found.append(NotJudged(f"causes in {name or 'the service without a name'}", why))
        if any(run.instance == "" for scope in scopes for run in scope.runs):
            why = "some of what it sent carries no service.instance.id: the runs of a version cannot be told apart"
            found.append(NotJudged(f"runs of {name}", why))
        if len(scopes) < 2:
            found.append(NotJudged(f"versions of {name}", "only one version has run; a comparison needs two"))
        elif min(len(scope.applications) for scope in scopes[-2:]) < MIN_RUNS:
            counts = f"{len(scopes[-2].applications)} and {counted(len(scopes[-1].applications), 'run')}"
            found.append(NotJudged(f"versions of {name}", f"{counts}; a verdict needs {MIN_RUNS} of each"))
    unknown = sum(c.verdict == "unknown" for c in compared)
    if unknown:
        found.append(
            NotJudged(counted(unknown, "compared metric"), "too few or too uneven runs; each says what it would need")
        )
    if path is None:
        found.append(NotJudged("the ledger", "a lake at a URL has no ledger; predictions are not kept"))
    elif bad := ledger.damaged(path):
        because = (
            f"line {bad[0].line} is no prediction ({bad[0].because})"
            f"{f', nor are {len(bad) - 1} more' if bad[1:] else ''}: {ledger.REMEDY}"
        )
        # First: a terminal shows ten, and most of a first run's are KPIs that nothing feeds.
        found.insert(0, NotJudged(f"{counted(len(bad), 'line')} of the ledger {path}", because))
    return _once(found)


OF_STARTS: Final = (slow_phase.NAME, slow_imports.NAME)
STARTS: Final = frozenset(name for name, _ in slow_phase.TARGETS_S.values())


def _unexplained_starts(
    outcomes: dict[tuple[str, str], list[Outcome]], newest: Sequence[Scope], values: Sequence[Kpi]
) -> list[NotJudged]:
    """A start that misses its target and has no finding: what took longest of it, none of it long enough alone."""
    found = []
    for scope in newest:
        missed = [k.name for k in values if k.service == scope.service and k.status == "fail" and k.name in STARTS]
        findings = [b for outcome in outcomes[scope.service, scope.name] for b in outcome.findings]
        startup = breakdown.of(scope).startup if missed else None
        if startup is None or any(b.detector in OF_STARTS or b.operation == "hub.startup" for b in findings):
            continue
        parts = [(p.phase, p.duration) for p in startup.phases]
        parts += [(f"import of {i.module}", i.cumulative) for i in startup.imports]
        dearest = sorted(parts, key=lambda part: -part[1])[:3]
        named = ", ".join(f"{name} {duration(seconds)}" for name, seconds in dearest) or "nothing in it is measured"
        why = f"no single part of the start is long enough to be its cause; longest: {named}"
        found += [NotJudged(f"why {name} is missed", why) for name in missed]
    return found


def _once(found: Sequence[NotJudged]) -> tuple[NotJudged, ...]:
    """What is said of several findings in the same words is said once, of all of them."""
    alike: dict[tuple[str, str], list[str]] = {}
    for said in found:
        alike.setdefault((said.what, said.because), []).extend(said.for_)
    return tuple(NotJudged(*words, tuple(dict.fromkeys(about))) for words, about in alike.items())


def _traces(data: Data, bottlenecks: Sequence[Bottleneck]) -> tuple[Trace, ...]:
    wanted = dict.fromkeys(b.evidence[0].trace_id for b in bottlenecks if b.evidence)
    found = []
    for trace_id in list(wanted)[:TRACES]:
        rows = data.engine.rows("trace_spans", trace_id=trace_id)
        if rows:
            found.append(shortened(build_trace(trace_id, rows), SPANS_A_TRACE))
    return tuple(found)
