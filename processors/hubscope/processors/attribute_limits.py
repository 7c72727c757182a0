"""Bounds of how many attributes a span, event, link, log record, resource or scope has, and how long values are.

As the SDKs do it (OpenTelemetry specification, "Attribute Limits"): the first ones stay; what is left out is counted
in the record's own dropped attributes count; texts are cut at the bound, also those in arrays; metric points and
exemplars are exempt, because a series without an attribute is another series.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc
from google.protobuf.message import Message

from hubscope.processors.arriving import Kind, Leaf, Suspects
from hubscope.processors.options import AttributeLimitOptions
from hubscope.semconv import HUB_REDACTED

_TEXTS: Final = ("string_value", "bytes_value")
_OWNERS: Final = ("resource", "scope", "events", "links")  # where a message has attributes besides its own


class AttributeLimits:
    """The processor; `dropped` and `truncated` are its counts."""

    name = "attribute_limits"

    def __init__(self, options: AttributeLimitOptions) -> None:
        self.options = options
        self._counts: Counter[str] = Counter(dropped=0, truncated=0)

    def counts(self) -> dict[str, int]:
        """Attributes left out and values cut since the process started."""
        return dict(self._counts)

    def suspects(self, leaves: Sequence[Leaf], found: Suspects) -> None:
        """Every row and request with too many attributes or too long a value."""
        for leaf in leaves:
            if leaf.metric and leaf.in_row:
                continue
            if leaf.kind is Kind.LIST and self.options.count:
                lengths = pc.fill_null(leaf.values.value_lengths(), 0).to_numpy()
                if lengths.size and lengths.max() > self.options.count:
                    found.add(leaf, np.flatnonzero(lengths > self.options.count))
            elif self.options.value_length and (
                leaf.name in ("string_value", "bytes_value") or leaf.kind is Kind.NESTED
            ):
                lengths = pc.fill_null(pc.binary_length(leaf.values), 0).to_numpy()
                if lengths.size and lengths.max() > self.options.value_length:
                    found.add(leaf, np.flatnonzero(lengths > self.options.value_length))

    def mend(self, message: Any) -> bool:
        """Cut what is too much of a row, a resource or a scope; whether there was any."""
        before = self._counts.total()
        if message.DESCRIPTOR.name != "Metric":
            for descriptor, value in message.ListFields():
                if descriptor.name == "attributes":
                    self._limit(message)
                elif descriptor.name in _OWNERS:
                    for owner in (value,) if isinstance(value, Message) else value:
                        self._limit(owner)
        return self._counts.total() > before

    def _limit(self, owner: Any) -> None:
        if self.options.count and len(owner.attributes) > self.options.count:
            marks = [pair for pair in owner.attributes[self.options.count :] if pair.key == HUB_REDACTED]
            dropped = len(owner.attributes) - self.options.count - len(marks)
            del owner.attributes[self.options.count :]
            owner.attributes.extend(marks)  # what redaction says of the record is none of the sender's
            owner.dropped_attributes_count += dropped
            self._counts["dropped"] += dropped
        if self.options.value_length:
            for pair in owner.attributes:
                if pair.key != HUB_REDACTED:
                    self._cut(pair.value)

    def _cut(self, value: Any) -> None:
        kind = value.WhichOneof("value")
        if kind in ("string_value", "bytes_value"):
            found = getattr(value, kind)
            if len(found) > self.options.value_length:
                setattr(value, kind, found[: self.options.value_length])
                self._counts["truncated"] += 1
        elif kind == "array_value":
            for member in value.array_value.values:
                self._cut(member)
        elif kind == "kvlist_value":
            for pair in value.kvlist_value.values:
                self._cut(pair.value)
