"""How a KPI value and an alert are told: the attributes and the sentence, the same in both forms of the processors."""

from __future__ import annotations

from hubscope import semconv
from hubscope.processors.targets import show_quantity
from hubscope.processors.windows import KpiValue, Raised


def kpi_attributes(value: KpiValue) -> dict[str, str | float]:
    """The attributes of a `hub.kpi.value` point, the same in both forms."""
    found: dict[str, str | float] = {
        semconv.HUB_KPI_NAME: value.kpi.name,
        semconv.HUB_KPI_AGGREGATE: value.kpi.aggregate,
        semconv.HUB_KPI_STATUS: value.status,
    }
    return {**found, semconv.HUB_KPI_TARGET: str(value.kpi.target)} if value.kpi.target else found


def alert_attributes(raised: Raised) -> dict[str, str | float]:
    """The attributes of a `hub.alert` event, the same in both forms."""
    return {
        semconv.HUB_ALERT_NAME: raised.alert.name,
        semconv.HUB_KPI_NAME: raised.alert.kpi,
        semconv.HUB_ALERT_THRESHOLD: raised.alert.threshold.limit,
        semconv.HUB_ALERT_OBSERVED: raised.observed,
    }


def alert_sentence(raised: Raised) -> str:
    observed = show_quantity(raised.observed, raised.unit)
    return f"{raised.alert.title}: {raised.alert.kpi} is {observed}, threshold {raised.alert.threshold}"
