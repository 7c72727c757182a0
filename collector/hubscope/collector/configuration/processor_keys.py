"""The keys of the processors, under `processors`."""

from __future__ import annotations

from typing import Final

from hubscope.collector.configuration import values
from hubscope.collector.configuration.key import Key

_REDACTION: Final = "processors.redaction"
_LIMITS: Final = "processors.attribute_limits"
_ENRICHMENT: Final = "processors.enrichment"
_SAMPLING: Final = "processors.sampling"

PROCESSOR_KEYS: Final[tuple[Key, ...]] = (
    Key(f"{_REDACTION}.enabled", values.boolean, "redaction.enabled", "Replace what looks like a secret."),
    Key(f"{_REDACTION}.action", values.redaction_action, "redaction.action", "What a secret becomes."),
    Key(f"{_REDACTION}.keys", values.texts, "redaction.keys", "More attribute keys that hold secrets, as globs."),
    Key(f"{_REDACTION}.patterns", values.expressions, "redaction.patterns", "More texts that are secrets."),
    Key(f"{_REDACTION}.allowed", values.expressions, "redaction.allowed", "Found texts that are none."),
    Key(f"{_REDACTION}.allowed_keys", values.texts, "redaction.allowed_keys", "Never looked at, as globs."),
    Key(f"{_REDACTION}.cards", values.boolean, "redaction.cards", "Card numbers too."),
    Key(f"{_LIMITS}.count", values.whole_number, "attribute_limits.count", "Attributes of a record; 0 for any number."),
    Key(f"{_LIMITS}.value_length", values.whole_number, "attribute_limits.value_length", "Of a value; 0 for any."),
    Key(f"{_ENRICHMENT}.host", values.boolean, "enrichment.host", "This machine's, for local senders."),
    Key(f"{_ENRICHMENT}.attributes", values.attributes, "enrichment.attributes", "For all senders' resources."),
    Key(f"{_SAMPLING}.enabled", values.boolean, "sampling.enabled", "Keep a share of the traces only."),
    Key(f"{_SAMPLING}.ratio", values.ratio, "sampling.ratio", "Share of ordinary traces that is kept."),
    Key(f"{_SAMPLING}.decision_wait", values.positive_duration, "sampling.wait_s", "From a trace's first span on."),
    Key(f"{_SAMPLING}.slow", values.duration, "sampling.slow_s", "Traces this long are kept whole; 0 for none."),
    Key(f"{_SAMPLING}.slow_percentile", values.percentile, "sampling.slow_percentile", "Of its root operation."),
    Key(f"{_SAMPLING}.max_traces", values.positive_number, "sampling.max_traces", "Waiting for their decision."),
    Key(f"{_SAMPLING}.max_size", values.positive_size, "sampling.max_size_bytes", "Of waiting spans, on disk."),
    Key(f"{_SAMPLING}.max_decisions", values.positive_number, "sampling.max_decisions", "Remembered for late spans."),
)  # fmt: skip
# Keys whose value is a table of anything.
TABLES: Final = frozenset({f"{_ENRICHMENT}.attributes"})
