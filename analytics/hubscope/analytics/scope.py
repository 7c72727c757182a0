"""What a detector, a metric or a recommendation looks at: one group of runs of one service, within one window."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from hubscope.analytics.engine import ANY, Engine
from hubscope.analytics.model import Run
from hubscope.processors.rules import Rules

Row = dict[str, Any]
V = TypeVar("V")

SECONDS_PER_DAY: Final = 86_400.0

# What is stated a day is the observed rate, and only from this much observation on: a start happens once a run, and a
# load lasts as long as somebody clicks. 40 s of a demo that lose 2.5 s would read "90 min a day", which nobody waits.
OBSERVED_FOR_A_DAY_S: Final = 3600.0


@dataclasses.dataclass(frozen=True)
class Spent:
    """Seconds spent (or lost) while a group of runs was observed, and what that is worth a day, if it can be said."""

    seconds: float
    observed_s: float

    @property
    def per_day(self) -> float | None:
        """Seconds a day at the observed rate; None where the group was seen for less than an hour."""
        if self.observed_s < OBSERVED_FOR_A_DAY_S:
            return None
        return self.seconds / self.observed_s * SECONDS_PER_DAY

    @property
    def reason(self) -> str:
        """Why `per_day` is None; '' where it is not."""
        if self.per_day is not None:
            return ""
        return (
            f"observed for {self.observed_s:.1f} s only: a rate a day is stated from {OBSERVED_FOR_A_DAY_S:.0f} s "
            "of observation on"
        )


@dataclasses.dataclass(frozen=True)
class RunInfo:
    id: str  # of instance and version: `fetch.run_text`
    service: str
    instance: str  # service.instance.id; '' where the resource names none
    version: str  # likewise
    first_ns: int
    last_ns: int
    spans: int
    is_worker: bool = False  # started by another run of the application, of which it is a part
    parent: str = ""  # of a worker, the instance that started it

    @property
    def seconds(self) -> float:
        return max((self.last_ns - self.first_ns) / 1e9, 0.0)

    def to_model(self) -> Run:
        return Run(
            id=self.instance,
            service=self.service,
            version=self.version or None,
            start=rfc3339(self.first_ns),
            end=rfc3339(self.last_ns),
            spans=self.spans,
        )


@dataclasses.dataclass(frozen=True)
class Data:
    """A lake within a window. Query results are kept: detectors and metrics ask for the same ones."""

    engine: Engine
    rules: Rules
    since_ns: int
    until_ns: int
    _kept: dict[tuple[Any, ...], list[Row]] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def rows(self, name: str, **values: Any) -> list[Row]:
        key = (name, *sorted(values.items()))
        if key not in self._kept:
            self._kept[key] = self.engine.rows(name, since_ns=self.since_ns, until_ns=self.until_ns, **values)
        return self._kept[key]

    def runs(self, service: str | None = None) -> tuple[RunInfo, ...]:
        """All runs, oldest first. A service of which no span was received has the runs that its metrics name."""
        wanted = ANY if service is None else service
        rows = self.rows("runs", service=wanted)
        known = {row["service"] for row in rows}
        rows = rows + [row for row in self.rows("runs_of_metrics", service=wanted) if row["service"] not in known]
        workers = {row["run"]: row["parent"] for row in self.rows("worker_runs", service=wanted)}
        runs = (
            RunInfo(
                *(r["run"], r["service"], r["instance"], r["version"], r["first_ns"], r["last_ns"], r["spans"]),
                r["run"] in workers,
                workers.get(r["run"], ""),
            )
            for r in rows
        )
        return tuple(sorted(runs, key=lambda r: (r.service, r.first_ns, r.id)))

    def versions(self, service: str) -> dict[str, tuple[RunInfo, ...]]:
        """The service's runs by version, the version first seen first: in the lake, whenever the window begins."""
        groups: dict[str, list[RunInfo]] = {}
        for run in self.runs(service):
            groups.setdefault(run.version, []).append(run)
        first_ns = {version: members[0].first_ns for version, members in groups.items()}
        if len(groups) > 1:
            for row in self.rows("versions_first_seen", service=service):
                if row["version"] in first_ns:
                    first_ns[row["version"]] = min(first_ns[row["version"]], row["first_ns"])
        return {version: tuple(groups[version]) for version in sorted(groups, key=lambda v: (first_ns[v], v))}


@dataclasses.dataclass(frozen=True)
class Scope:
    """A group of runs of one service. `name` is the version, or what the group is called."""

    data: Data
    service: str
    name: str
    runs: tuple[RunInfo, ...]  # oldest first, never empty

    def rows(self, query: str, **values: Any) -> list[Row]:
        """The rows of a shipped query that belong to this group's runs."""
        ids = {run.id for run in self.runs}
        return [row for row in self.data.rows(query, service=self.service, **values) if row["run"] in ids]

    @property
    def applications(self) -> tuple[RunInfo, ...]:
        """The runs without their workers, which ran beside them; all where nothing but workers was seen."""
        return tuple(run for run in self.runs if not run.is_worker) or self.runs

    @functools.cached_property
    def _application_of(self) -> dict[str, str]:
        """The run that each run is a part of: itself, or for a worker the one that started it, maybe through workers.
        Workers whose starter is not in the group are together the first of them."""
        by_instance = {run.instance: run for run in self.runs}
        orphans: dict[str, str] = {}
        found: dict[str, str] = {}
        for run in self.runs:
            top, passed = run, {run.id}
            while top.is_worker and (above := by_instance.get(top.parent)) is not None and above.id not in passed:
                top = above
                passed.add(top.id)
            found[run.id] = orphans.setdefault(top.parent, top.id) if top.is_worker else top.id
        return found

    def by_application(self, values: Mapping[str, V]) -> dict[str, list[V]]:
        """What was found of each run, by the run of the application that it is, or is a worker of."""
        found: dict[str, list[V]] = {}
        for run, value in values.items():
            found.setdefault(self._application_of.get(run, run), []).append(value)
        return found

    @property
    def observed_s(self) -> float:
        """Wall time over which the group was seen: the sum of its runs' lengths, at least one second."""
        return max(sum(run.seconds for run in self.applications), 1.0)

    @property
    def rules(self) -> Rules:
        return self.data.rules

    def spent(self, seconds: float) -> Spent:
        """`seconds` beside the time over which the group was observed: not below 0, and not above that time.

        Operations that run side by side may take more than passed meanwhile; no more than that was lost.
        """
        return Spent(min(max(seconds, 0.0), self.observed_s), self.observed_s)


def rfc3339(ns: int) -> str:
    """Nanoseconds since 1970 as RFC 3339 in UTC, with microseconds (integer arithmetic: a float would round them)."""
    seconds, rest = divmod(ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
