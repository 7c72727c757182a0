"""Imports at start that nothing uses before interactive, and what not importing them would leave out.

A subtree of imports is charged only with packages whose import time lies nearly all in it: what another part
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
    impact,
    one_span,
    severity_by_share,
    typical,
)
from hubscope.analytics.metrics import package_import_time, top_level
from hubscope.analytics.model import Bottleneck, Checked, NotJudged
from hubscope.analytics.scope import Row, Scope

NAME: Final = "slow_imports"
_OURS: Final = frozenset({"hubscope", "opentelemetry"})
MOSTLY: Final = 0.9


@dataclasses.dataclass(frozen=True)
class Unused:
    """An import whose packages nothing used: `module` is the outermost of them, `packages` all it alone brought."""

    module: str
    packages: tuple[str, ...]
    values: dict[str, float]  # run -> seconds
    trace_id: str
    span_id: str


def unused(scope: Scope) -> list[Unused]:
    """Unused packages of the scope's starts by the import that brought them in, the dearest first.

    The outermost import marked unused stands for its whole subtree: what ran inside it before it ended ran for the
    import's own sake. A package counts where nine tenths of its import time lie in such subtrees; the rest is needed
    by others.
    """
    rows = scope.rows("startup_imports")
    by_id = {(row["trace_id"], row["span_id"]): row for row in rows}
    own_s = {key: row["duration_s"] for key, row in by_id.items()}
    for row in rows:
        parent = (row["trace_id"], row["parent_span_id"])
        if parent in own_s:
            own_s[parent] -= row["duration_s"]
    inside: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    anywhere: dict[str, float] = defaultdict(float)
    example: dict[str, Row] = {}
    for key, row in by_id.items():
        package = top_level(row["module"])
        cost_s = max(own_s[key], 0.0)
        anywhere[package] += cost_s
        root: Row | None = None
        current: Row | None = row
        while current is not None:
            root = current if current["used"] == "false" else root
            current = by_id.get((current["trace_id"], current["parent_span_id"]))
        if root is not None and package not in _OURS:
            module = top_level(root["module"])
            inside[package][module] += cost_s
            if module not in example or root["duration_s"] > example[module]["duration_s"]:
                example[module] = root
    packages: dict[str, list[str]] = defaultdict(list)
    for package, shares in inside.items():
        if sum(shares.values()) >= MOSTLY * anywhere[package]:
            # What two imports share is charged once, to the one that spent more on it.
            packages[max(sorted(shares), key=lambda module: shares[module])].append(package)
    found = []
    for module in sorted(packages, key=lambda m: (-example[m]["duration_s"], m)):
        names = tuple(sorted(packages[module]))
        row = example[module]
        values = package_import_time(scope, {"packages": ",".join(names)})
        found.append(Unused(row["module"], names, values, row["trace_id"], row["span_id"]))
    return found


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
    interactive = [row for row in starts if row["ended_by"] != "exit"]
    took_s = typical(interactive or starts, "duration_s")
    findings = []
    left_s = 0.0
    for group in unused(scope):
        cost_s = statistics.median(group.values.values())
        if cost_s >= IMPORT_FLOOR_S and cost_s >= IMPORT_SHARE * took_s:
            findings.append(_finding(scope, group, cost_s, took_s, bool(interactive)))
        else:
            left_s += cost_s
    fine = Checked("other imports at start", f"those used by nothing take {duration(left_s)} together")
    return Outcome(tuple(findings), (fine,))


def _finding(scope: Scope, group: Unused, cost_s: float, took_s: float, interactive: bool) -> Bottleneck:
    share = min(cost_s / took_s, 1.0)
    end = "the application is interactive" if interactive else "the process ends"  # a start that never became so
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
            f"it before {end}: import it where it is first needed."
        ),
        impact=impact(scope, sum(group.values.values()), share, "startup.interactive" if interactive else None),
        evidence=one_span(group.trace_id, group.span_id),
        version=scope.name or None,
        facts={"module": group.module, "packages": list(group.packages), "seconds": cost_s, "startup_s": took_s},
    )
