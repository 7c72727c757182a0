"""Findings for which there is no method of prediction: each is said to have none, with what is lacking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hubscope.analytics.model import Bottleneck
from hubscope.analytics.recommend.advice import Advice, Case, not_made, together

REASONS: Final[Mapping[str, tuple[str, str]]] = {
    "plugin_overhead": (
        "cheaper plugins",
        "how much of each plugin's time its work needs is not in the spans, and none of them is over its quota",
    ),
    "regression": (
        "undoing what made it slower",
        "the versions say how much slower it became, not which of their changes did it",
    ),
}


def recommend(case: Case) -> Advice:
    return together([_none(finding) for detector in REASONS for finding in case.of(detector)])


def _none(finding: Bottleneck) -> Advice:
    what, because = REASONS[finding.detector]
    return not_made(finding, what, because)
