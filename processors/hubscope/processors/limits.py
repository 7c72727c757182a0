"""Quotas as plain functions and three small bounded memories, shared by both forms of the processors.

A call is judged against the limits that `Rules.quota` finds for its plugin. Execution, memory, file system and a
network limit of 0 are judged call by call; shares and rates (a quota with a window) over tumbling windows.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from hubscope import semconv
from hubscope.processors.rules import DEFAULT_TIER, RESOURCES, Quota, Rules
from hubscope.processors.targets import show_quantity

# The attribute of a plugin span that says what the call used; execution is the span's own duration.
USED: Final[dict[str, str]] = {
    "memory": semconv.HUB_PLUGIN_MEMORY_DELTA,
    "cpu": semconv.HUB_PLUGIN_CPU_TIME,
    "network": semconv.HUB_PLUGIN_NETWORK_BYTES,
    "filesystem": semconv.HUB_PLUGIN_DISK_BYTES,
    "execution": "",
}
OBSERVED: Final = "observed"  # in process a breach is seen and told, not prevented

# 1,000 plugins in 20 processes, each with CPU and network.
MAX_USES: Final = 40_000
# Events told a plugin, resource and minute of event time; the rest only counts in hub.quota.violations.
MAX_EVENTS_A_WINDOW: Final = 20
EVENT_WINDOW_S: Final = 60


class Plugin(NamedTuple):
    """Whom a quota is about. `permissions` None: it never said what it may do."""

    id: str
    tier: str
    permissions: frozenset[str] | None

    @classmethod
    def of(cls, id: str, tier: str, permissions: str) -> Plugin:
        """From texts as the lake has them; `permissions` is a JSON list, or '' where the attribute is absent."""
        return cls(id, tier or DEFAULT_TIER, _permissions(permissions))


@functools.lru_cache(maxsize=1024)
def _permissions(text: str) -> frozenset[str] | None:
    if not text:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return frozenset(text.split(","))
    return frozenset(map(str, found)) if isinstance(found, list) else frozenset([str(found)])


def limits(rules: Rules) -> Callable[[Plugin], dict[str, Quota]]:
    """A cached look-up: plugin -> resource -> the one quota that holds."""

    @functools.lru_cache(maxsize=10_000)
    def of(plugin: Plugin) -> dict[str, Quota]:
        found = {resource: rules.quota(resource, *plugin) for resource in RESOURCES}
        return {resource: quota for resource, quota in found.items() if quota is not None}

    return of


class Violation(NamedTuple):
    plugin: Plugin
    hook: str
    quota: Quota
    observed: float  # in the quota's unit; over a window, what had been used when the limit was crossed
    time_ns: int
    trace_id: str
    span_id: str

    def attributes(self) -> dict[str, str | float]:
        """The attributes of the hub.quota.violation event."""
        return {
            semconv.HUB_PLUGIN_ID: self.plugin.id,
            semconv.HUB_PLUGIN_TIER: self.plugin.tier,
            semconv.HUB_PLUGIN_HOOK: self.hook,
            semconv.HUB_QUOTA_RESOURCE: self.quota.resource,
            semconv.HUB_QUOTA_LIMIT: self.quota.limit,
            semconv.HUB_QUOTA_OBSERVED: self.observed,
            semconv.HUB_QUOTA_UNIT: self.quota.unit,
            semconv.HUB_QUOTA_WINDOW: self.quota.window_s,
            semconv.HUB_QUOTA_ACTION: OBSERVED,
        }

    def count_attributes(self) -> dict[str, str]:
        """The attributes of hub.quota.violations."""
        return {
            semconv.HUB_PLUGIN_ID: self.plugin.id,
            semconv.HUB_PLUGIN_TIER: self.plugin.tier,
            semconv.HUB_QUOTA_RESOURCE: self.quota.resource,
            semconv.HUB_QUOTA_ACTION: OBSERVED,
        }

    def sentence(self) -> str:
        where = (
            f"within {self.quota.window_s:g} s" if self.quota.window_s else f"in one call of {self.hook or 'a hook'}"
        )
        used, limit = (show_quantity(value, self.quota.unit) for value in (self.observed, self.quota.limit))
        what = {"execution": "ran for", "cpu": "used at least", "network": "moved"}.get(self.quota.resource, "used")
        of = {"execution": "", "cpu": " of a CPU"}.get(self.quota.resource, f" of {self.quota.resource}")
        return f"plugin {self.plugin.id} {what} {used}{of} {where}; its quota ({self.quota.name}) is {limit}"


class Uses:
    """What each plugin used in its current windows. Use of a long call is spread over the windows it ran in."""

    def __init__(self, max_uses: int = MAX_USES) -> None:
        self.max_uses = max_uses
        self.evicted = 0
        # (service, instance, plugin, resource) -> window number -> [used, told]; the least recently used first
        self._windows: dict[tuple[str, str, str, str], dict[int, list[float]]] = {}

    def room(self, key: tuple[str, str, str, str], quota: Quota) -> float:
        """What the fullest window of the key can still take."""
        used = max((use for use, _ in self._windows.get(key, {}).values()), default=0.0)
        return quota.limit * quota.window_s - used

    def add(
        self, key: tuple[str, str, str, str], quota: Quota, start_ns: int, end_ns: int, amount: float
    ) -> float | None:
        """Adds a call's use; the share or rate used so far if this call was the one that crossed the limit."""
        windows = self._windows.pop(key, None) or {}
        self._windows[key] = windows
        if len(self._windows) > self.max_uses:
            del self._windows[next(iter(self._windows))]
            self.evicted += 1
        crossed: float | None = None
        for window, part in spread(start_ns, end_ns, amount, int(quota.window_s * 1e9)):
            use = windows.setdefault(window, [0.0, 0.0])
            use[0] += part
            if use[0] > quota.limit * quota.window_s and not use[1]:
                use[1] = 1.0
                crossed = max(crossed or 0.0, use[0] / quota.window_s)
        # Calls arrive when they end, so windows before the last four hold nothing that can still be added to.
        for window in sorted(windows)[:-4]:
            del windows[window]
        return crossed

    def snapshot(self) -> dict[str, Any]:
        return {"evicted": self.evicted, "uses": [[*key, list(w.items())] for key, w in self._windows.items()]}

    def restore(self, state: dict[str, Any] | None) -> None:
        state = state or {}
        self.evicted = state.get("evicted", 0)
        self._windows = {
            (service, instance, plugin, resource): {int(n): list(use) for n, use in windows}
            for service, instance, plugin, resource, windows in state.get("uses", [])
        }


def spread(start_ns: int, end_ns: int, amount: float, window_ns: int) -> Iterator[tuple[int, float]]:
    """`amount`, shared among the windows that [start, end] touches, by time; at most the last 64 windows."""
    first, last = start_ns // window_ns, end_ns // window_ns
    if first >= last or end_ns <= start_ns:
        yield last, amount
        return
    for window in range(max(first, last - 63), last + 1):
        overlap = min(end_ns, (window + 1) * window_ns) - max(start_ns, window * window_ns)
        if overlap > 0:
            yield window, amount * overlap / (end_ns - start_ns)


class Flood:
    """Lets the first events of each plugin, resource and minute through; what it holds back is only counted."""

    def __init__(self, max_keys: int = MAX_USES) -> None:
        self.max_keys = max_keys
        self.held_back = 0
        self._told: dict[tuple[str, str, str, str], list[int]] = {}  # -> [window number, events told]

    def lets_through(self, key: tuple[str, str, str, str], time_ns: int) -> bool:
        window = time_ns // (EVENT_WINDOW_S * 10**9)
        told = self._told.pop(key, [window, 0])
        self._told[key] = told
        if len(self._told) > self.max_keys:
            del self._told[next(iter(self._told))]
        if window > told[0]:
            told[:] = [window, 0]
        told[1] += 1
        if told[1] > MAX_EVENTS_A_WINDOW:
            self.held_back += 1
            return False
        return True

    def snapshot(self) -> dict[str, Any]:
        return {"held_back": self.held_back, "told": [[*key, *told] for key, told in self._told.items()]}

    def restore(self, state: dict[str, Any] | None) -> None:
        state = state or {}
        self.held_back = state.get("held_back", 0)
        self._told = {(s, i, p, r): [window, n] for s, i, p, r, window, n in state.get("told", [])}
