"""Imports at start that nothing uses before interactive, and what not importing them would leave out.

A subtree of imports is charged only with packages of which no module was used before interactive: what another part
of the start needs would be imported all the same. What the measuring itself imports is left out.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from typing import Final

from hubscope.analytics.findings import (
    IMPORT_FLOOR_S,
    IMPORT_SHARE,
    Outcome,
    duration,
    fingerprint,
    one_span,
    severity_by_share,
    typical,
)
from hubscope.analytics.metrics import package_import_time, top_level
from hubscope.analytics.model import Bottleneck, Checked, Impact, NotJudged
from hubscope.analytics.scope import Row, Scope

NAME: Final = "slow_imports"
_OURS: Final = frozenset({"hubscope", "opentelemetry"})


@dataclasses.dataclass(frozen=True)
class Unused:
    """An import whose packages nothing used: `module` is the outermost of them, `packages` all it alone brought."""

    module: str
    packages: tuple[str, ...]
    values: dict[str, float]  # run -> seconds
    trace_id: str
    span_id: str


def unused(scope: Scope) -> list[Unused]:
    """Unused packages of the scope's starts by the import that brought them in, the dearest first."""
    rows = scope.rows("startup_imports")
    by_id = {(row["trace_id"], row["span_id"]): row for row in rows}
    used = _used_packages(rows, by_id) | _OURS
    brought: dict[str, set[str]] = defaultdict(set)
    example: dict[str, Row] = {}
    for row in rows:
        package = top_level(row["module"])
        if package in used:
            continue
        outermost, current = row, by_id.get((row["trace_id"], row["parent_span_id"]))
        while current is not None:
            if top_level(current["module"]) not in used:
                outermost = current
            current = by_id.get((current["trace_id"], current["parent_span_id"]))
        module = top_level(outermost["module"])
        brought[module].add(package)
        if module not in example or outermost["duration_s"] > example[module]["duration_s"]:
            example[module] = outermost
    # A package that two imports share is charged once, to the one whose subtree is dearest.
    order = sorted(brought, key=lambda m: -example[m]["duration_s"])
    taken: set[str] = set()
    found = []
    for module in order:
        packages = brought[module] - taken
        taken |= packages
        if packages:
            dimensions = {"packages": ",".join(sorted(packages))}
            row = example[module]
            values = package_import_time(scope, dimensions)
            found.append(Unused(row["module"], tuple(sorted(packages)), values, row["trace_id"], row["span_id"]))
    return found


def _used_packages(rows: list[Row], by_id: dict[tuple[str, str], Row]) -> set[str]:
    """Packages of which code ran after their own imports had ended, and those of which nobody knows.

    Only the outermost imports of a package count: within them its modules use each other, which is no use to anybody
    else (of scipy.stats' 1,000 imports every fourth is "used" so).
    """
    said: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        package = top_level(row["module"])
        current = by_id.get((row["trace_id"], row["parent_span_id"]))
        while current is not None and top_level(current["module"]) != package:
            current = by_id.get((current["trace_id"], current["parent_span_id"]))
        if current is None:
            said[package].add(row["used"])
    return {package for package, words in said.items() if "true" in words or "false" not in words}


def detect(scope: Scope) -> Outcome:
    starts = scope.rows("startup")
    imports = scope.rows("startup_imports")
    if not starts:
        return Outcome()
    if not imports:
        return Outcome(not_judged=(NotJudged("imports at start", "the starts hold no import spans"),))
    if all(row["used"] == "" for row in imports):
        why = "whether a module was used before interactive was not recorded"
        return Outcome(not_judged=(NotJudged("imports at start", why),))
    took_s = typical(starts, "duration_s")
    findings = []
    left_s = 0.0
    for group in unused(scope):
        cost_s = statistics.median(group.values.values())
        if cost_s >= IMPORT_FLOOR_S and cost_s >= IMPORT_SHARE * took_s:
            findings.append(_finding(scope, group, cost_s, took_s))
        else:
            left_s += cost_s
    fine = Checked("other imports at start", f"those used by nothing take {duration(left_s)} together")
    return Outcome(tuple(findings), (fine,))


def _finding(scope: Scope, group: Unused, cost_s: float, took_s: float) -> Bottleneck:
    share = min(cost_s / took_s, 1.0)
    others = [package for package in group.packages if package != top_level(group.module)]
    along = f" (with {', '.join(others[:3])}{' and others' if len(others) > 3 else ''})" if others else ""
    return Bottleneck(
        fingerprint=fingerprint(NAME, scope.service, top_level(group.module)),
        detector=NAME,
        severity=severity_by_share(share),
        service=scope.service,
        operation=f"import {group.module}",
        sentence=(
            f"The start imports {group.module}{along} for {duration(cost_s)} of {duration(took_s)}, and nothing uses "
            f"it before the application is interactive: import it where it is first needed."
        ),
        impact=Impact(scope.per_day(sum(group.values.values())), share, "startup.interactive"),
        evidence=one_span(group.trace_id, group.span_id),
        version=scope.name or None,
        facts={"module": group.module, "packages": list(group.packages), "seconds": cost_s, "startup_s": took_s},
    )
