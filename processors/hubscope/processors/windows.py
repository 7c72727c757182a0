"""Sliding windows of KPIs over event time, and the alerts that watch them. Both forms of the processors feed these.

A window is cut into slots (6 of 10 s in the usual 60 s); a slot holds one `Sketch` a stream. A stream is one feed of
the KPI ("0", "1", …), its ratings, or for growth one process. The value is what the slots of the window hold together,
so it moves in steps of a slot and covers between 50 and 60 s.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, NamedTuple

from hubscope.processors.rules import Alert, Kpi, Rules
from hubscope.processors.sketch import Sketch
from hubscope.processors.targets import Target

# 24 KPIs of 400 services and versions. A full window of 100 buckets a slot takes about 40 kB, the usual one 3 kB.
MAX_WINDOWS: Final = 10_000
SLOTS: Final = 6
SLOTS_OF_GROWTH: Final = 60  # one point a minute of an hour: 1770 pairs for Theil-Sen
MAX_STREAMS: Final = 256  # processes of one service and version that growth follows at once
RATINGS: Final = "ratings"
OWN_SET_UP: Final = "own set-up"  # of a start: what the measuring itself took of it

_log = logging.getLogger(__name__)


class Subject(NamedTuple):
    """Whose window it is. Versions are kept apart, so that the first minute after an upgrade mixes nothing."""

    service: str
    version: str


class KpiValue(NamedTuple):
    subject: Subject
    kpi: Kpi
    value: float  # in the KPI's unit, never NaN
    start_ns: int
    time_ns: int  # the latest sample's
    own_s: float = 0.0  # of a start: what the measuring's own set-up takes of it

    @property
    def status(self) -> str:
        """As the KPI's record judges; a start that misses its target by the measuring's part alone is unknown."""
        return "unknown" if self.kpi.is_missed_by_own_set_up(self.value, self.own_s) else self.kpi.judge(self.value)


class Raised(NamedTuple):
    subject: Subject
    alert: Alert
    observed: float
    unit: str  # the KPI's
    time_ns: int


@dataclass
class _Window:
    latest_ns: int
    slots: dict[int, dict[str, Sketch]]


def apdex_score(duration_s: float, failed: bool, threshold_s: float) -> float:
    """1 satisfied, 0.5 tolerating, 0 frustrated: Apdex Technical Specification 1.1, where an error frustrates."""
    if failed or duration_s > 4 * threshold_s:
        return 0.0
    return 1.0 if duration_s <= threshold_s else 0.5


def slot_ns(kpi: Kpi) -> int:
    """Length of one slot of the KPI's window."""
    slots = SLOTS_OF_GROWTH if kpi.aggregate == "growth_per_h" else SLOTS
    return max(1, int(kpi.window_s * 1e9) // slots)


def growth_per_h(points: list[tuple[int, float]], minimum_window_s: float) -> float:
    """Theil-Sen slope (median of all pairwise slopes; Sen 1968) of (ns, value) points, an hour; NaN if too short."""
    points = sorted(points)
    if len(points) < 3 or (points[-1][0] - points[0][0]) < minimum_window_s * 1e9:
        return math.nan
    slopes = [(v2 - v1) / (t2 - t1) for n, (t1, v1) in enumerate(points) for t2, v2 in points[n + 1 :] if t2 > t1]
    return median(slopes) * 3600e9 if slopes else math.nan


def aggregate(kpi: Kpi, streams: dict[str, list[Sketch]]) -> float:
    """The KPI's value of what its streams hold (sketches of the slots in the window); NaN where it has none."""
    if kpi.aggregate == "growth_per_h":
        slopes = [
            growth_per_h([(s.last_ns, s.last) for s in sketches], kpi.minimum_window_s) for sketches in streams.values()
        ]
        return max((slope for slope in slopes if not math.isnan(slope)), default=math.nan)
    merged: dict[str, Sketch] = {}
    for name, sketches in streams.items():
        merged[name] = whole = Sketch()
        for sketch in sketches:
            whole.merge(sketch)
    if kpi.aggregate == "ratio":
        asked = merged["1"].count if "1" in merged else 0.0
        return (merged["0"].count if "0" in merged else 0.0) / asked if asked > 0 else math.nan
    first = next((merged[str(n)] for n in range(len(kpi.feeds)) if str(n) in merged and merged[str(n)].count), Sketch())
    if kpi.aggregate == "apdex" and RATINGS in merged:
        first.merge(merged[RATINGS])
    return _of_one(kpi.aggregate, first)


def _own_set_up_s(sketches: list[Sketch]) -> float:
    """The typical own part of the starts in a window; 0 where none was sent."""
    whole = Sketch()
    for sketch in sketches:
        whole.merge(sketch)
    return whole.quantile(0.5) if whole.count else 0.0


def _of_one(how: str, sketch: Sketch) -> float:
    if sketch.count <= 0:
        return math.nan
    match how:
        case "p50" | "p95" | "p99":
            return sketch.quantile(int(how[1:]) / 100)
        case "mean" | "apdex":
            return sketch.total / sketch.count
        case "reciprocal_mean":
            return sketch.count / sketch.total if sketch.total > 0 else math.nan
        case "min":
            return sketch.low
        case "max":
            return sketch.high
        case "last":
            return sketch.last
        case "distinct":
            return float(len(sketch.distinct))
        case _:
            raise ValueError(f"no such aggregate: {how}")


class Windows:
    """All windows of one processor. Not safe for threads: the caller keeps them apart."""

    def __init__(self, rules: Rules, max_windows: int = MAX_WINDOWS) -> None:
        self.kpis = {kpi.name: kpi for kpi in rules.kpis}
        self.alerts = rules.alerts
        self.max_windows = max_windows
        self.evicted = 0  # windows dropped because there were too many
        self.late = 0  # samples older than their window
        self._windows: dict[tuple[str, str, str], _Window] = {}  # the least recently fed first
        self._fed: dict[tuple[str, str, str], None] = {}
        self._raised: dict[tuple[str, str, str], None] = {}  # (service, version, alert)

    def __len__(self) -> int:
        return len(self._windows)

    def sketch(self, subject: Subject, kpi: Kpi, stream: str, time_ns: int) -> Sketch | None:
        """The sketch to add a sample of that time to; None where it is too late (counted) or one stream too many."""
        key = (subject.service, subject.version, kpi.name)
        length_ns = slot_ns(kpi)
        window = self._windows.pop(key, None) or _Window(time_ns, {})
        self._windows[key] = window  # now the most recently fed
        if len(self._windows) > self.max_windows:
            self._evict()
        window.latest_ns = max(window.latest_ns, time_ns)
        slot = time_ns // length_ns
        if slot <= self._oldest(kpi, window.latest_ns):
            self.late += 1
            return None
        self._fed[key] = None
        streams = window.slots.setdefault(slot, {})
        found = streams.get(stream)
        if found is None:
            if len(streams) >= MAX_STREAMS:
                self.evicted += 1
                return None
            found = streams[stream] = Sketch()
        return found

    def drain(self) -> Iterator[KpiValue | Raised]:
        """The value of every window that was fed since the last time, each followed by the alerts it raises."""
        fed, self._fed = self._fed, {}
        for key in fed:
            window, kpi, subject = self._windows.get(key), self.kpis[key[2]], Subject(key[0], key[1])
            if window is None:  # evicted meanwhile
                continue
            oldest = self._oldest(kpi, window.latest_ns)
            window.slots = {slot: streams for slot, streams in window.slots.items() if slot > oldest}
            streams: dict[str, list[Sketch]] = {}
            for slot in sorted(window.slots):
                for name, sketch in window.slots[slot].items():
                    streams.setdefault(name, []).append(sketch)
            value = aggregate(kpi, streams)
            if math.isnan(value):
                continue
            own_s = _own_set_up_s(streams.get(OWN_SET_UP, []))
            start_ns = max(0, (oldest + 1) * slot_ns(kpi))  # of spans without times the window would begin before 1970
            yield KpiValue(subject, kpi, value, start_ns, window.latest_ns, own_s)
            yield from self._judge(subject, kpi, value, window.latest_ns)

    def _judge(self, subject: Subject, kpi: Kpi, value: float, time_ns: int) -> Iterator[Raised]:
        for alert in self.alerts:
            if alert.kpi != kpi.name:
                continue
            key = (subject.service, subject.version, alert.name)
            if key not in self._raised:
                if alert.threshold.judge(value):
                    self._raised[key] = None
                    while len(self._raised) > self.max_windows:
                        del self._raised[next(iter(self._raised))]
                    yield Raised(subject, alert, value, kpi.unit, time_ns)
            elif not Target(alert.threshold.operator, alert.clear, "").judge(value):
                del self._raised[key]

    @staticmethod
    def _oldest(kpi: Kpi, latest_ns: int) -> int:
        """The last slot that is no longer in the window."""
        slots = SLOTS_OF_GROWTH if kpi.aggregate == "growth_per_h" else SLOTS
        return latest_ns // slot_ns(kpi) - slots

    def _evict(self) -> None:
        key = next(iter(self._windows))
        del self._windows[key]
        self._fed.pop(key, None)
        self.evicted += 1
        if self.evicted == 1:
            _log.warning("more than %d KPI windows: the least recently fed are dropped", self.max_windows)

    def snapshot(self) -> dict[str, Any]:
        """Everything that decides what comes next, as JSON values. Taken between batches, after `drain`."""
        return {
            "evicted": self.evicted,
            "late": self.late,
            "raised": list(self._raised),
            "windows": [
                [
                    *key,
                    window.latest_ns,
                    [
                        [slot, name, sketch.to_json()]
                        for slot, streams in window.slots.items()
                        for name, sketch in streams.items()
                    ],
                ]
                for key, window in self._windows.items()
            ],
        }

    def restore(self, state: dict[str, Any] | None) -> None:
        """Back to a snapshot; None is the beginning. Windows of KPIs that the rules no longer have are left out."""
        state = state or {}
        self.evicted, self.late = state.get("evicted", 0), state.get("late", 0)
        self._raised = dict.fromkeys((str(s), str(v), str(a)) for s, v, a in state.get("raised", []))
        self._fed, self._windows = {}, {}
        for service, version, name, latest_ns, slots in state.get("windows", []):
            if name not in self.kpis:
                continue
            window = self._windows[(service, version, name)] = _Window(latest_ns, {})
            for slot, stream, sketch in slots:
                window.slots.setdefault(slot, {})[stream] = Sketch.from_json(sketch)
