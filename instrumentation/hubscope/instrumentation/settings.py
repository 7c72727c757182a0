"""Our environment variables, each read in one place. Nothing here imports OpenTelemetry.

Every `OTEL_*` variable keeps its meaning; these are the ones of our own that the application side reads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from typing import Final, NamedTuple

DISABLED: Final = "HUBSCOPE_DISABLED"
PROCESS_START: Final = "HUBSCOPE_PROCESS_START"
IMPORT_THRESHOLD_MS: Final = "HUBSCOPE_IMPORT_THRESHOLD_MS"
INSTRUMENT_CHILDREN: Final = "HUBSCOPE_INSTRUMENT_CHILDREN"
PARENT: Final = "HUBSCOPE_PARENT"
SERVICE_FALLBACK: Final = "HUBSCOPE_SERVICE_FALLBACK"
STARTUP_TYPE: Final = "HUBSCOPE_STARTUP_TYPE"
SDK_PROCESSORS: Final = "HUBSCOPE_SDK_PROCESSORS"
EXIT_TIMEOUT_MS: Final = "HUBSCOPE_EXIT_TIMEOUT_MS"
SPOOL_DIR: Final = "HUBSCOPE_SPOOL_DIR"
SPOOL_MAX_BYTES: Final = "HUBSCOPE_SPOOL_MAX_BYTES"

DEFAULT_IMPORT_THRESHOLD_MS: Final = 5.0
# All three signals together; the process is to leave within 1.5 s, the rest is the interpreter's own.
DEFAULT_EXIT_TIMEOUT_MS: Final = 1200.0
# 64 MiB: 400,000 spans of five attributes, or a day of an application that makes five a second.
DEFAULT_SPOOL_MAX_BYTES: Final = float(64 << 20)


class Variable(NamedTuple):
    """One environment variable: what docs/reference lists."""

    name: str
    default: str
    brief: str


VARIABLES: Final[tuple[Variable, ...]] = (
    Variable(DISABLED, "false", "`true` switches everything of ours off; the application pays nothing."),
    Variable(PROCESS_START, "", "A launcher's clock at the start of the process, in nanoseconds since 1970."),
    Variable(IMPORT_THRESHOLD_MS, "5", "Imports that took at least this long get a span of their own."),
    Variable(
        INSTRUMENT_CHILDREN, "false", "`true`: Python processes that the application starts are instrumented too."
    ),
    Variable(
        PARENT, "", "Set for those: process id and service.instance.id of what started them. No start of a service."
    ),
    Variable(SERVICE_FALLBACK, "", "The service name where neither OTEL_SERVICE_NAME nor the application gives one."),
    Variable(
        STARTUP_TYPE, "", "`cold` or `warm`, where the caller knows; otherwise judged from page faults and disk reads."
    ),
    Variable(SDK_PROCESSORS, "false", "`true` derives KPIs and quota violations in the application itself."),
    Variable(EXIT_TIMEOUT_MS, "1200", "How long leaving may wait for the collector, all signals together."),
    Variable(
        SPOOL_DIR,
        "hubscope/spool in the user state folder",
        "Where telemetry waits that no collector took. It goes out with the next start, or when the collector is back.",
    ),
    Variable(
        SPOOL_MAX_BYTES,
        "67108864",
        "How large that folder may grow; beyond it the oldest goes, and is counted. 0 keeps nothing.",
    ),
)

# Standard variables that the SDK reads as numbers. Of one that is none it logs a traceback, or sets nothing up at all.
NUMBERS: Final = (
    *(f"OTEL_{p}_{n}" for p in ("BSP", "BLRP") for n in ("SCHEDULE_DELAY", "EXPORT_TIMEOUT", "MAX_QUEUE_SIZE")),
    *("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE"),
    *("OTEL_METRIC_EXPORT_INTERVAL", "OTEL_METRIC_EXPORT_TIMEOUT"),
    *("OTEL_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"),
    *("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT"),
    *("OTEL_SPAN_EVENT_COUNT_LIMIT", "OTEL_SPAN_LINK_COUNT_LIMIT"),
    *("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT"),
)

_TRUE = frozenset({"1", "true", "yes", "on"})


def is_true(name: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the variable is set to a word that means yes."""
    return environ.get(name, "").strip().lower() in _TRUE


def disabled(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether nothing at all is to be done in this process."""
    return is_true(DISABLED, environ) or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def is_number(text: str) -> bool:
    """Whether a text is a finite number of at least 0."""
    try:
        return 0 <= float(text) < float("inf")
    except ValueError:
        return False


def drop_wrong_numbers(environ: MutableMapping[str, str]) -> None:
    """Unset each standard variable that is no number, so that its default holds, and say so on the log."""
    for name in NUMBERS:
        text = environ.get(name, "").strip()
        if text and not is_number(text):
            import logging

            logging.getLogger("hubscope").warning(
                "hubscope: %s: expected a number of at least 0, got %r; using its default", name, text
            )
            del environ[name]


def positive_number(name: str, default: float, environ: Mapping[str, str] = os.environ) -> float:
    """The variable as a number ≥ 0. A value that is none is said on the log, and the default holds."""
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not is_number(text):
        import logging

        logging.getLogger("hubscope").warning(
            "hubscope: %s: expected a number of at least 0, got %r; using %g", name, text, default
        )
        return default
    return float(text)
