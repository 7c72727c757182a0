"""Every environment variable of ours, in one list: docs/reference/environment.md is generated from it, and a test finds
any that is read and not listed, or listed and not read. `OTEL_*` variables keep OpenTelemetry's meaning.
"""

from __future__ import annotations

from typing import Final

from hubscope.instrumentation.settings import VARIABLES as APPLICATION
from hubscope.instrumentation.settings import Variable

VARIABLES: Final[tuple[Variable, ...]] = (
    # What the application side reads stands in instrumentation/settings.py, which must import nothing else.
    *APPLICATION,
    Variable("HUBSCOPE_LAKE", "hubscope/lake in the user data folder", "Where the lake is; what `--lake` says wins."),
    Variable("HUBSCOPE_CONFIG", "", "The collector's configuration file; what `hubscope collect --config` says wins."),
    Variable(
        "HUBSCOPE_RULES",
        "",
        "TOML file with KPIs, alerts and quotas that replace or add to the packaged ones; what `--rules` says wins.",
    ),
    Variable("HUBSCOPE_DEBUG", "", "Any value: an error of the command line prints its traceback as well."),
)
