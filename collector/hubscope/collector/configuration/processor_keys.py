"""The keys of the processors, under `processors`."""

from __future__ import annotations

from functools import partial
from typing import Final

from hubscope.collector.configuration import values
from hubscope.collector.configuration.key import Key
from hubscope.processors.options import ACTIONS

_REDACTION: Final = "processors.redaction"
_LIMITS: Final = "processors.attribute_limits"
_ENRICHMENT: Final = "processors.enrichment"
_SAMPLING: Final = "processors.sampling"

PROCESSOR_KEYS: Final[tuple[Key, ...]] = (
    Key(f"{_REDACTION}.enabled", values.boolean, "redaction.enabled", "Replace what looks like a secret; true."),
    Key(f"{_REDACTION}.action", partial(values.one_of, ACTIONS), "redaction.action", "`mask`, `hash` or `drop`; mask."),
    Key(f"{_REDACTION}.keys", values.texts, "redaction.keys", "More attribute keys that hold secrets, as globs."),
    Key(f"{_REDACTION}.patterns", values.expressions, "redaction.patterns", "More texts that are secrets."),
    Key(f"{_REDACTION}.allowed", values.expressions, "redaction.allowed", "Found texts that are none."),
    Key(f"{_REDACTION}.allowed_keys", values.texts, "redaction.allowed_keys", "Never looked at, as globs."),
    Key(f"{_REDACTION}.cards", values.boolean, "redaction.cards", "Card numbers too; false."),
    Key(f"{_LIMITS}.count", values.whole_number, "attribute_limits.count", "Attributes of a record; 1024, 0 for all."),
    Key(f"{_LIMITS}.value_length", values.whole_number, "attribute_limits.value_length", "Of a value; 0 for any."),
    Key(f"{_ENRICHMENT}.host", values.boolean, "enrichment.host", "This machine's, for local senders; false."),
    Key(f"{_ENRICHMENT}.attributes", values.attributes, "enrichment.attributes", "For all senders' resources."),
    Key(f"{_SAMPLING}.enabled", values.boolean, "sampling.enabled", "Keep a share of the traces only; false."),
    Key(f"{_SAMPLING}.ratio", values.ratio, "sampling.ratio", "Share of ordinary traces that is kept; 0.1."),
    Key(f"{_SAMPLING}.decision_wait", values.positive_duration, "sampling.wait_s", "From the first span on; 10s."),
    Key(f"{_SAMPLING}.slow", values.duration, "sampling.slow_s", "Traces this long are kept whole; 0 for none."),
    Key(f"{_SAMPLING}.slow_percentile", values.percentile, "sampling.slow_percentile", "Of their root operation; 99."),
    Key(f"{_SAMPLING}.max_traces", values.positive_number, "sampling.max_traces", "Waiting; 100,000."),
    Key(f"{_SAMPLING}.max_size", values.positive_size, "sampling.max_size_bytes", "Of waiting spans; 256 MiB."),
    Key(f"{_SAMPLING}.max_decisions", values.positive_number, "sampling.max_decisions", "Remembered; 500,000."),
)  # fmt: skip
# Keys whose value is a table of anything.
TABLES: Final = frozenset({f"{_ENRICHMENT}.attributes"})
