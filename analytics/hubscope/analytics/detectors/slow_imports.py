"""Imports at start that nothing uses before interactive, and what not importing them would leave out.

What an import's mark says holds for its own package: no code of that package that the import loaded ran after it. It
says nothing of other packages it brought in (numpy under scipy), so each package is judged by its own outermost
imports, all of them: one that is used anywhere is never claimed, nor is a part of it. What the measuring itself imports
is left out.
"""

from __future__ import annotations

import dataclasses
import math
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
    kpi_limit,
    one_span,
    severity_by_share,
    typical,
)
from hubscope.analytics.import_tree import is_unused, marked_s, outermost, top_level
from hubscope.analytics.metrics import package_import_time
from hubscope.analytics.model import Bottleneck, Checked, NotJudged
from hubscope.analytics.scope import Row, Scope

NAME: Final = "slow_imports"
_OURS: Final = frozenset({"hubscope", "opentelemetry"})
# An import of which it isn't known whether it is needed is named from this share of a start that meets its target on.
UNKNOWN_SHARE: Final = 0.25
NO_CODE: Final = "it has no Python functions whose calls could be seen, or their count had run out"


@dataclasses.dataclass(frozen=True)
class Unused:
    """An import whose packages nothing used: `module` is the outermost of them, `packages` what it brought."""

    module: str
    packages: tuple[str, ...]
    values: dict[str, float]  # run -> seconds
    trace_id: str
    span_id: str


def _outermost(scope: Scope) -> dict[str, list[tuple[Row, list[Row]]]]:
    """Each package's imports that stand in no other import of it, with the imports around each, innermost first.

    Packages that only the measuring imports are left out, and so is its own.
    """
    found = {}
    for package, roots in outermost(scope.rows("startup_imports")).items():
        theirs = [
            (row, around)
            for row, around in roots
            if not _OURS & {package, *(top_level(other["module"]) for other in around)}
        ]
        if theirs:
            found[package] = theirs
    return found


def unused(scope: Scope) -> list[Unused]:
    """Packages of which nothing was used in any of the scope's starts, by what brought them in, dearest first.

    An unused package stands under the outermost of the unused packages around it without a gap: what a used package
    brought in is there without them too.
    """
    packages = _outermost(scope)
    free = {package for package, roots in packages.items() if is_unused(roots)}
    groups: dict[str, list[str]] = defaultdict(list)
    for package in sorted(free):
        under: dict[str, float] = defaultdict(float)
        for row, around in packages[package]:
            owner = package
            for other in around:
                if top_level(other["module"]) not in free:
                    break
                owner = top_level(other["module"])
            under[owner] += row["duration_s"]
        # In runs that import in another order it may stand elsewhere: charged once, where it mostly is.
        groups[max(sorted(under), key=lambda name: under[name])].append(package)
    found = []
    for owner, names in groups.items():
        row = max((r for r, _ in packages[owner] if r["used"] == "false"), key=lambda r: float(r["duration_s"]))
        values = package_import_time(scope, {"packages": ",".join(names)})
        found.append(Unused(row["module"], tuple(names), values, row["trace_id"], row["span_id"]))
    return sorted(found, key=lambda group: (-statistics.median(group.values.values()), group.module))


def unknown(scope: Scope) -> list[Unused]:
    """Packages without any mark on their outermost imports: whether they were used can't be known. Dearest first."""
    found = []
    for package, roots in _outermost(scope).items():
        if not marked_s(roots, "true") and marked_s(roots, "") > marked_s(roots, "false"):
            row = max((r for r, _ in roots), key=lambda r: float(r["duration_s"]))
            values = package_import_time(scope, {"packages": package})
            found.append(Unused(row["module"], (package,), values, row["trace_id"], row["span_id"]))
    return sorted(found, key=lambda group: (-statistics.median(group.values.values()), group.module))


def detect(scope: Scope) -> Outcome:
    starts = scope.rows("startup")
    imports = scope.rows("startup_imports")
    if not starts:
        return Outcome()
    if not imports:
        return Outcome(not_judged=(NotJudged("imports at start", "the starts hold no import spans"),))
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
    missed = any(row["duration_s"] > kpi_limit(scope, f"startup.{row['type']}", math.inf) for row in interactive)
    for group in unknown(scope):
        cost_s = statistics.median(group.values.values())
        least_s = max(IMPORT_FLOOR_S, (IMPORT_SHARE if missed else UNKNOWN_SHARE) * took_s)
        if cost_s >= least_s:
            findings.append(_not_known(scope, group, cost_s, took_s, bool(interactive)))
    if all(row["used"] == "" for row in imports):
        why = "whether a module was used before interactive was not recorded"
        return Outcome(tuple(findings), not_judged=(NotJudged("imports at start", why),))
    fine = Checked("other imports at start", f"those used by nothing take {duration(left_s)} together")
    return Outcome(tuple(findings), (fine,))


def _end(interactive: bool) -> str:
    """What ends the start; one that never became interactive ends with its process."""
    return "the application is interactive" if interactive else "the process ends"


def _not_known(scope: Scope, group: Unused, cost_s: float, took_s: float, interactive: bool) -> Bottleneck:
    """A dear import that may be needed: the place is said, a saving is not."""
    sentence = (
        f"Importing {group.module} takes {duration(cost_s)} of the start's {duration(took_s)}; whether anything "
        f"needs it before {_end(interactive)} can't be known ({NO_CODE}): look at what it does, or import it later."
    )
    return _about(scope, group, cost_s, took_s, interactive, sentence, use="unknown")


def _finding(scope: Scope, group: Unused, cost_s: float, took_s: float, interactive: bool) -> Bottleneck:
    """An import of which nothing was used before the start ended."""
    others = [package for package in group.packages if package != top_level(group.module)]
    along = f" (with {', '.join(others[:3])}{' and others' if len(others) > 3 else ''})" if others else ""
    sentence = (
        f"The start imports {group.module}{along} for {duration(cost_s)} of {duration(took_s)}, and nothing uses "
        f"it before {_end(interactive)}: import it where it is first needed."
    )
    return _about(scope, group, cost_s, took_s, interactive, sentence, use="none")


def _about(
    scope: Scope, group: Unused, cost_s: float, took_s: float, interactive: bool, sentence: str, use: str
) -> Bottleneck:
    share = min(cost_s / took_s, 1.0)
    return Bottleneck(
        fingerprint=fingerprint(NAME, scope.service, top_level(group.module)),
        detector=NAME,
        severity=severity_by_share(share),
        service=scope.service,
        operation=f"import {group.module}",
        sentence=sentence,
        impact=impact(scope, sum(group.values.values()), share, "startup.interactive" if interactive else None),
        evidence=one_span(group.trace_id, group.span_id),
        version=scope.name or None,
        facts={
            "module": group.module,
            "packages": list(group.packages),
            "seconds": cost_s,
            "startup_s": took_s,
            "use": use,
        },
    )
