"""The names that travel: what stands in semconv.py is what happens."""

from __future__ import annotations

import re
from pathlib import Path

from hubscope import semconv

ROOT = Path(__file__).parents[2]
SENDERS = ("instrumentation", "processors")  # the source roots that measure or derive


def test_a_metric_says_who_sends_it() -> None:
    """Our code makes the metrics that are hubscope's, and none of those that an application sends itself."""
    constants = {value: name for name, value in vars(semconv).items() if name.startswith("METRIC_")}
    code = "\n".join(
        path.read_text("utf-8") for root in SENDERS for path in (ROOT / root).rglob("*.py") if path.name != "semconv.py"
    )
    used = {metric.name for metric in semconv.METRICS if re.search(rf"\b{constants[metric.name]}\b", code)}
    assert {metric.sender for metric in semconv.METRICS} == {"hubscope", "application"}
    assert used == {metric.name for metric in semconv.METRICS if metric.sender == "hubscope"}
