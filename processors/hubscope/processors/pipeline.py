"""The order of the processors, in one place."""

from __future__ import annotations

from pathlib import Path

from hubscope.processors.batch import Processor
from hubscope.processors.derived import Derived
from hubscope.processors.kpis import Kpis
from hubscope.processors.quotas import Quotas
from hubscope.processors.rollup import Rollup
from hubscope.processors.rules import Rules
from hubscope.processors.snapshots import Remembered


def processors(rules: Rules, state_dir: Path | None) -> tuple[Processor, ...]:
    """What every batch goes through, in this order. `state_dir` is the lake's `.state` (snapshots go to `processors/`
    in it); None keeps the windows in memory only, for a reader of files that never replays.
    """
    directory = None if state_dir is None else Path(state_dir) / "processors"
    return (
        Remembered(Derived(), directory),  # before the KPIs, which are fed by what it derives
        Remembered(Kpis(rules), directory),
        Remembered(Quotas(rules), directory),
        Rollup(),  # after what it rolls up
    )
