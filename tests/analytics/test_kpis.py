"""KPIs over runs: what their intervals may say."""

from __future__ import annotations

from typing import Any

from hubscope.analytics import report


def test_an_interval_of_a_share_stays_a_share(lake: Any) -> None:
    """Two uneven runs give a wide interval; that of a rate or a score still lies within 0 and 1."""
    for slow, failed in ((0, 1), (6, 9)):
        run = lake.run()
        for number in range(12):
            status = "Error" if number < failed else "Unset"
            run.trace(lake.span("GET /", 4500 if number < slow else 20, kind="Server", status=status))
    found = {kpi.name: kpi for kpi in report(lake.write()).summary.kpis}
    for name in ("ux.error_rate", "ux.satisfaction"):
        kpi = found[name]
        assert kpi.low is not None
        assert kpi.high is not None
        assert kpi.value is not None
        assert 0.0 <= kpi.low <= kpi.value <= kpi.high <= 1.0
    assert found["ux.satisfaction"].high == 1.0
