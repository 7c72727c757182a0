"""What the collector's processes say on stderr: text for people, or one JSON object a line for machines.

    {"time": "2026-11-25T08:30:00.123Z", "level": "warning", "process": "worker", "event": "…", "logger": "…"}

`event` is the message; what was given as `extra={"fields": {…}}` stands beside it. A message that repeats is written
`BURST` times a minute, and then once with the number of those left out: a destination that is down, or a sender that
sends nonsense, fills no disk. The collector's tokens and the headers it sends are struck out wherever they appear.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hubscope.collector.configuration.settings import CollectorSettings

BURST: Final = 5
WINDOW_S: Final = 60.0
MAX_KINDS: Final = 1000  # of messages that are remembered; more are not told apart in that minute
EVENT_LIMIT: Final = 8000  # characters
STRUCK_OUT: Final = "[secret]"

_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_LINE_BREAK: Final = re.compile(r"\n(?! )")

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def set_up(process: str, settings: CollectorSettings | None = None) -> None:
    """Make this process log to stderr as the settings say; again when they changed."""
    form = settings.logs.format if settings is not None else "text"
    level = _LEVELS[settings.logs.level if settings is not None else "info"]
    secrets = secrets_of(settings) if settings is not None else ()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(process, secrets) if form == "json" else TextLines(process, secrets))
    handler.addFilter(Repeats())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))  # of libraries
    logging.getLogger("hubscope").setLevel(level)
    logging.raiseExceptions = False  # stderr may be a pipe whose reader has gone; that stops nothing


def secrets_of(settings: CollectorSettings) -> tuple[str, ...]:
    """What must stand in no line: tokens that let in, and the headers and passwords that others let us in by."""
    headers = [value for forward in settings.forward for _, value in forward.headers]
    headers += [clickhouse.password for clickhouse in settings.clickhouse]
    words = [word for value in headers for word in (value, *value.split()) if len(word) >= 8]
    tokens = [token for token in settings.security.bearer_tokens if len(token) >= 4]  # "a" would strike out every a
    return tuple(sorted({*tokens, *words}, key=len, reverse=True))


class _Lines(logging.Formatter):
    """Common to both forms."""

    def __init__(self, process: str, secrets: Iterable[str]) -> None:
        super().__init__()
        self._process = process
        self._secrets = tuple(secrets)

    def event(self, record: logging.LogRecord) -> str:
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # a message that does not fit its arguments is still said
            text = f"{record.msg} {record.args}"
        left_out = getattr(record, "left_out", 0)
        if left_out:
            text += f" ({left_out} more of these were left out)"
        return self.clean(text)

    def clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, STRUCK_OUT)
        return text if len(text) <= EVENT_LIMIT else f"{text[:EVENT_LIMIT]}…"

    def trace(self, record: logging.LogRecord) -> str:
        return self.clean(self.formatException(record.exc_info)) if record.exc_info and record.exc_info[0] else ""


class TextLines(_Lines):
    """`worker: …`, after the time where nothing else notes it: a terminal's reader has a clock, journald writes one."""

    def __init__(self, process: str, secrets: Iterable[str]) -> None:
        super().__init__("hubscope collect" if process == "supervisor" else process, secrets)
        self._timed = not (sys.stderr.isatty() or os.environ.get("JOURNAL_STREAM"))

    def clean(self, text: str) -> str:
        """A terminal obeys control characters, and a second line could look like one of ours: it is indented."""
        return _LINE_BREAK.sub("\n  ", _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], super().clean(text)))

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self._process}: {self.event(record)}"
        if self._timed:
            line = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(record.created))} {line}"
        trace = self.trace(record)
        return f"{line}\n{trace}" if trace else line


class JsonLines(_Lines):
    """One object a line, whatever the message holds."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "pid": record.process,
            "event": self.event(record),
            "logger": record.name,
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line |= {k: self.clean(v) if isinstance(v, str) else v for k, v in fields.items() if k not in line}
        if trace := self.trace(record):
            line["exception"] = trace
        return json.dumps(line, ensure_ascii=True, default=str)


class Repeats(logging.Filter):
    """Lets `BURST` records of one message pass a minute. The first after that minute says how many were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, str], list[float]] = {}  # kind -> [start of its minute, passed or not]

    def filter(self, record: logging.LogRecord) -> bool:
        now_s = time.monotonic()
        # What concerns one destination is counted for it alone: a noisy one must not silence what is said of another.
        kind = (record.name, f"{record.msg} {getattr(record, 'about', '')}")
        if kind not in self._seen and len(self._seen) >= MAX_KINDS:
            self._seen = {k: v for k, v in self._seen.items() if now_s - v[0] < WINDOW_S}
            kind = kind if len(self._seen) < MAX_KINDS else ("", "")
        start_s, count = self._seen.get(kind, (now_s, 0))
        if now_s - start_s >= WINDOW_S:
            record.left_out = max(0, int(count) - BURST)
            start_s, count = now_s, 0
        self._seen[kind] = [start_s, count + 1]
        return count < BURST
