"""A hundred thousand damaged requests over every transport and encoding: answered, harmless, and nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.collector.fuzz.run import fuzz

# 100,000 take 90 s on two cores that do nothing else.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
INPUTS = 100_000
GROWTH_MIB = 60.0  # allocators breathe; a leak of 1 KB a request would be 80 MiB between the two looks


def test_damaged_requests_are_answered_and_lose_nothing(tmp_path: Path) -> None:
    """Every damaged request is answered within 5 s, no process dies or grows, and all that was accepted arrives."""
    result = fuzz(tmp_path, INPUTS, seed=7)
    assert result.problems() == []
    assert result.sent == INPUTS
    assert result.good_acknowledged > 0.9 * INPUTS / 50, "good requests among the damaged ones are taken, or wait"
    assert result.dead_letters == []
    assert min(result.accepted.values()) > 1000, "much of it was harmless damage"
    warm_mib, last_mib = result.growth_mib()
    assert last_mib - warm_mib < GROWTH_MIB, result.memory_mib[:: max(1, len(result.memory_mib) // 20)]
