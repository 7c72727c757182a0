"""Import on first use what nothing uses before interactive: the start is spared those packages' import time."""

from __future__ import annotations

import statistics

from hubscope.analytics.detectors.slow_imports import NO_CODE
from hubscope.analytics.import_tree import top_level
from hubscope.analytics.metrics import package_import_time
from hubscope.analytics.model import Bottleneck
from hubscope.analytics.recommend.advice import Advice, Case, not_made, recommended, together


def recommend(case: Case) -> Advice:
    return together([_one(case, finding) for finding in case.of("slow_imports")])


def _one(case: Case, finding: Bottleneck) -> Advice:
    module, packages = finding.facts["module"], finding.facts["packages"]
    if finding.facts["use"] == "unknown":
        because = f"whether it is needed before the start ends can't be known: {NO_CODE}"
        return not_made(finding, "importing it later", because)
    dimensions = {"packages": ",".join(packages)}
    values = package_import_time(case.scope, dimensions)
    now = statistics.median(values.values())
    # What else brings in the packages that came along is not recorded, since an import runs once; at worst they stay.
    alone = package_import_time(case.scope, {"packages": module.partition(".")[0]})
    stays = now - statistics.median(alone.values())
    return recommended(
        case,
        finding,
        "import_lazily",
        change=f"Import {module} where it is first used, inside the function, instead of at start.",
        where=_where(case, finding),
        metric="startup.package_import_time",
        dimensions=dimensions,
        now=now,
        then=0.0,
        then_low=0.0,
        then_high=stays,
        method=(
            f"import time of {len(packages)} package{'s' * (len(packages) != 1)} of which nothing was used "
            "before interactive; packages it brought that are used are left out, shared ones charged once"
        ),
        saved_s=sum(values.values()),
        verify=f"`import {module}` is no longer in the trace of hub.startup",
    )


def _where(case: Case, finding: Bottleneck) -> str:
    """The module whose import brings it. Spans name modules and no files, so whose code that is, is left to say."""
    module = finding.facts["module"]
    rows = {(row["trace_id"], row["span_id"]): row for row in case.scope.rows("startup_imports")}
    for evidence in finding.evidence:
        for span_id in evidence.offender_span_ids:
            row = rows.get((evidence.trace_id, span_id))
            around = rows.get((evidence.trace_id, row["parent_span_id"])) if row else None
            if around:
                package = top_level(around["module"])
                whose = f"if {package} is an installed package, that file is its maintainers'"
                return f"the import of {module} inside that of {around['module']} ({whose})"
    return f"the import of {module}, inside no other that was recorded (its trace shows the phase)"
