"""A start that misses its target is explained, or it is said that it is not."""

from __future__ import annotations

from typing import Any

import pytest

from hubscope.analytics import report


@pytest.mark.parametrize("hook_ms", [500, 40])
def test_a_slow_plugin_hook_of_a_start_is_a_finding(hook_ms: float, lake: Any) -> None:
    """Also where it takes a fifth of it: with plugin, hook, prediction and a line in the table; a short one is not,
    and the start is then one that could not be judged."""
    for number in range(4):
        imported = lake.module_import("datasette", 900 + number)
        hook = lake.plugin("slowrow.py", "startup", hook_ms + number)
        lake.run("1").trace(lake.startup(2500 + number, imported, hook, type="warm", end="first_request"))
    made = report(lake.write())
    (warm,) = (kpi for kpi in made.summary.kpis if kpi.name == "startup.warm")
    assert warm.status == "fail"
    names = [b.sentence for b in made.bottlenecks if "slowrow.py startup" in b.sentence]
    predicted = [r.change for r in made.recommendations if "slowrow.py startup" in r.change]
    (start,) = (b.startup for b in made.breakdown if b.startup)
    listed = [p.phase for p in start.phases]
    unexplained = [n.because for n in made.could_not_judge if n.what == "why startup.warm is missed"]
    if hook_ms == 500:
        assert (len(names), len(predicted), unexplained) == (1, 1, [])
        assert "plugin slowrow.py startup" in listed
    else:
        assert (names, predicted, listed) == ([], [], [])
        assert ["import of datasette 90" in because for because in unexplained] == [True]
