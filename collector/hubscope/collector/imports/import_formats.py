"""What a file may hold, found by its content: requests one after the other, and for each bad one where it stood.

OTLP JSON lines (the stock Collector's file exporter), a single OTLP JSON document, Jaeger JSON (an API answer or the
UI's download), the file exporter's length-prefixed form (four bytes, big-endian; protobuf or JSON, each message
zstd-compressed or not), one bare request in protobuf, and dead letters (`….traces.otlp`). A whole file may be zstd-
or gzip-compressed. What is none of these is one problem, not one a line.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, cast

import zstandard
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from hubscope.collector.imports.import_jaeger import is_jaeger, jaeger_request
from hubscope.collector.log.wal import Signal
from hubscope.collector.otlp.decode import MESSAGES
from hubscope.collector.otlp.ids import check_ids
from hubscope.collector.otlp.otlp_json import from_value, parse
from hubscope.errors import BadInputError

MAX_MESSAGE_BYTES: Final = 64 << 20  # as the receivers' limit
MAX_DOCUMENT_BYTES: Final = 256 << 20  # a document is held whole, and takes about ten times its size as objects
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_GZIP: Final = b"\x1f\x8b"
_KEYS: Final = {
    "resourceSpans": Signal.TRACES,
    "resourceMetrics": Signal.METRICS,
    "resourceLogs": Signal.LOGS,
    "resource_spans": Signal.TRACES,
    "resource_metrics": Signal.METRICS,
    "resource_logs": Signal.LOGS,
}


# What no JSON text has. A file with one of them that also has no line that begins as JSON lines do is binary.
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_JSON_LINE: Final = re.compile(rb'^\{[ \t]*"', re.MULTILINE)
_IN_LINE: Final = re.compile(r": line 1 column (\d+) \(char \d+\)$")  # as the JSON parser counts, in one line's text
_SNIFFED_BYTES: Final = 64 << 10
_SHOWN_BYTES: Final = 8

# How a message begins: with the tag of the one field of an OTLP request, as JSON, or compressed.
_MESSAGE_STARTS: Final = (b"\x0a", b"{", b"\x28", b"\x1f", b"")

READ: Final = (
    "hubscope import reads OTLP JSON (lines, or one document), the stock Collector's length-prefixed files, OTLP "
    "protobuf and Jaeger JSON, plain or compressed with gzip or zstd"
)
MEND: Final = "mend what is named and import the file again: what is in the lake already is not added twice"
AGAIN: Final = "import it again when it is whole: what is in the lake already is not added twice"


class Found(NamedTuple):
    """One request of a file, or why there is none at that place."""

    where: str  # "line 3", "message 2", "" for a file that is one document
    requests: tuple[tuple[Signal, bytes], ...]
    problem: str = ""
    source: bytes = b""  # what it was read from, decompressed; empty where that is not all there yet: the file may grow
    remedy: str = ""


def requests_in(path: Path, read_bytes: Callable[[int], None] = lambda _: None) -> Iterator[Found]:
    """Every request of a file, in its order. `read_bytes(n)` is told how many of the file's bytes were read so far.

    Raises OSError where the file cannot be read; what is wrong with its content comes as a `problem`.
    """
    signal = _dead_letter_signal(path)
    with path.open("rb") as file:
        if signal is not None:
            yield _protobuf("", file.read(MAX_MESSAGE_BYTES), signal)
            return
        compressed = _decompressed(_Counted(file, read_bytes))
        stream: io.BufferedReader = io.BufferedReader(cast(io.RawIOBase, compressed), 1 << 20)
        where = ""
        for found in _found(stream):
            where = found.where
            if compressed.broken and found.problem and not found.source:
                break  # what is not all there is told of once, below
            yield found
        if compressed.broken:
            remedy = f"decompressing it says the same; fetch or copy it anew, then {AGAIN}"
            yield Found(where, (), f"{compressed.broken}; what stood before that was read", remedy=remedy)


def _found(stream: io.BufferedReader) -> Iterator[Found]:
    sample = stream.peek(_SNIFFED_BYTES)[:_SNIFFED_BYTES]
    text = sample.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not sample:
        yield Found("", (), "the file is empty", remedy=f"if it is still to be written, {AGAIN}")
    elif text[:1] in (b"{", b"[", b"") or not (_is_length(sample) or _is_binary(sample)):
        yield from _json(stream)
    elif _is_length(sample):
        yield from _messages(stream)
    else:
        yield _bare(stream.read(MAX_MESSAGE_BYTES + 1))


def _is_binary(sample: bytes) -> bool:
    return _CONTROL.search(sample) is not None and _JSON_LINE.search(sample) is None


def _bare(data: bytes) -> Found:
    """A request as it travels, without its length before it; or what cannot be one."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Found(
            "",
            (),
            "byte 0: the text is UTF-16, and JSON is UTF-8",
            data,
            "convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW",
        )
    signal = signal_of(data) if len(data) <= MAX_MESSAGE_BYTES else None
    if signal is not None:
        return _protobuf("", data, signal)
    start = data[:_SHOWN_BYTES].hex(" ")
    return Found("", (), f"byte 0: this is neither JSON nor an OTLP request (it begins with {start})", data, READ)


def _decompressed(file: _Counted) -> _Decompressed:
    plain: io.BufferedReader = io.BufferedReader(cast(io.RawIOBase, file), 1 << 20)
    start = plain.peek(4)
    if start.startswith(_ZSTD):
        reader = zstandard.ZstdDecompressor().stream_reader(plain, read_across_frames=True)
        return _Decompressed("zstd", reader.read, file)
    if start.startswith(_GZIP):
        return _Decompressed("gzip", gzip.GzipFile(fileobj=plain).read1, file)
    return _Decompressed("", plain.read1, file)


def _is_length(start: bytes) -> bool:
    """Whether a length stands there that a request may have, and after it, as far as it is there, how each begins."""
    # The bytes 0, 1, 2, 3 would be a length of 65 kB, and a binary file of any kind "was cut off".
    is_size = len(start) >= 4 and 0 < int.from_bytes(start[:4], "big") <= MAX_MESSAGE_BYTES
    return is_size and start[4:5] in _MESSAGE_STARTS


def _json(stream: io.BufferedReader) -> Iterator[Found]:
    first = stream.readline(MAX_MESSAGE_BYTES + 1).removeprefix(b"\xef\xbb\xbf")
    if not _is_whole(first):
        # The first line alone is no JSON: a document over many lines, or a bad line.
        rest = stream.read(MAX_DOCUMENT_BYTES - len(first))
        if not stream.peek(1):
            if _is_whole(first + rest):
                yield _document("", first + rest)
            elif _JSON_LINE.search(rest):
                yield from _lines(io.BufferedReader(cast(io.RawIOBase, io.BytesIO(rest))), first)
            else:
                yield _broken(first + rest)
            return
        stream = io.BufferedReader(cast(io.RawIOBase, _Chained(rest, stream)), 1 << 20)
    yield from _lines(stream, first)


def _broken(text: bytes) -> Found:
    """Why a text that should be one document is none."""
    if not text.strip():
        return Found("", (), "there is nothing in it but white space", remedy=READ)
    if text.lstrip()[:1] not in (b"{", b"["):
        shown = text.lstrip()[:40].decode("utf-8", "replace").splitlines()[0]
        return Found("line 1", (), f"this is no JSON: it begins with {shown!r}", text, READ)
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        if _is_cut(error):
            lines = text.count(b"\n", 0, len(text.rstrip())) + 1
            return _cut(f"line {lines}", len(text), "the JSON")
        problem = f"column {error.colno}: not JSON: {error.msg}"
        return Found(f"line {error.lineno}", (), problem, text, f"mend it there. {READ}")
    except (ValueError, RecursionError):
        pass
    return _document("", text)


def _is_cut(error: json.JSONDecodeError) -> bool:
    """Whether the text was good up to where it ends."""
    return error.msg.startswith("Unterminated string") or not error.doc[error.pos :].strip()


def _cut(where: str, at_byte: int, what: str) -> Found:
    return Found(where, (), f"{what} was cut off: it ends at byte {at_byte}, in the middle", remedy=AGAIN)


def _is_whole(text: bytes) -> bool:
    try:
        return parse(text) is not None
    except BadInputError:
        return False


def _lines(stream: io.BufferedReader, first: bytes) -> Iterator[Found]:
    number, line, at_byte = 1, first, len(first)
    while line:
        where = f"line {number}"
        if len(line) > MAX_MESSAGE_BYTES:
            source = line
            while line and not line.endswith(b"\n"):
                line = stream.readline(1 << 20)
                at_byte += len(line)
            yield Found(where, (), f"longer than {MAX_MESSAGE_BYTES >> 20} MiB", source if line else b"")
        elif line.strip():
            found = _document(where, line)
            if found.problem and not line.endswith(b"\n") and not _is_whole(line):
                found = _cut(where, at_byte, "the last line")
            yield found
        number += 1
        line = stream.readline(MAX_MESSAGE_BYTES + 1)
        at_byte += len(line)


def _document(where: str, text: bytes) -> Found:
    source = text.strip()
    try:
        requests = tuple((signal, request.SerializeToString()) for signal, request in _requests_of(parse(text)))
        for signal, payload in requests:
            check_ids(MESSAGES[signal], payload)
    except BadInputError as error:
        problem = _IN_LINE.sub(r" at column \1", error.message) if where else error.message
        return Found(where, (), problem, source, MEND)
    return Found(where, requests, "", source)


def _requests_of(value: Any) -> Iterator[tuple[Signal, Message]]:
    if is_jaeger(value):
        yield Signal.TRACES, jaeger_request(value)
        return
    keys = [key for key in _KEYS if key in value] if isinstance(value, dict) else []
    if not keys:
        raise BadInputError("neither resourceSpans, resourceMetrics nor resourceLogs (OTLP), nor data (Jaeger)")
    for signal in dict.fromkeys(_KEYS[key] for key in keys):
        yield signal, from_value(value, signal)


def _messages(stream: io.BufferedReader) -> Iterator[Found]:
    number, at_byte = 0, 0
    while prefix := stream.read(4):
        number += 1
        where = f"message {number}"
        size_bytes = int.from_bytes(prefix, "big")
        if len(prefix) < 4:
            yield _cut(where, at_byte + len(prefix), "its length")
            return
        if size_bytes > MAX_MESSAGE_BYTES:
            problem = f"byte {at_byte}: it says that it is {size_bytes} B long; the rest of the file cannot be read"
            yield Found(where, (), problem, remedy=f"the file is damaged there, or is none of what can be read. {READ}")
            return
        data = stream.read(size_bytes)
        if len(data) < size_bytes:
            problem = f"was cut off after {len(data)} of {size_bytes} B: the data end at byte {at_byte + 4 + len(data)}"
            yield Found(where, (), problem, remedy=AGAIN)
            return
        at_byte += 4 + size_bytes
        if data.startswith(_ZSTD):
            try:
                with zstandard.ZstdDecompressor().stream_reader(data) as reader:
                    data = reader.read(MAX_MESSAGE_BYTES + 1)
            except zstandard.ZstdError as error:
                yield Found(where, (), f"cannot be decompressed: {error}", data)
                continue
            if len(data) > MAX_MESSAGE_BYTES:
                yield Found(where, (), f"longer than {MAX_MESSAGE_BYTES >> 20} MiB", data)
                continue
        yield _document(where, data) if data[:1] == b"{" else _protobuf(where, data, signal_of(data))


def _protobuf(where: str, data: bytes, signal: Signal | None) -> Found:
    if signal is None:
        return Found(where, (), "no OTLP request of spans, metrics or logs", data, READ)
    try:
        MESSAGES[signal].FromString(data)
        check_ids(MESSAGES[signal], data)
    except DecodeError as error:
        return Found(where, (), f"no OTLP protobuf: {error}", data, READ)
    except BadInputError as error:
        return Found(where, (), error.message, data, MEND)
    return Found(where, ((signal, data),), "", data)


def signal_of(data: bytes) -> Signal | None:
    """Which request the bytes are; the three look alike, and nothing in the file says so.

    A request fits if protobuf can read it without a field that it does not know, and if its ids have the length that
    OTLP gives them: what is an id in one is a name in the other. None where not exactly one fits.
    """
    if not data:
        return Signal.TRACES  # an empty request is empty of everything
    readable: list[Signal] = []
    fitting: list[Signal] = []
    for signal, message in MESSAGES.items():
        try:
            request = message.FromString(data)
        except DecodeError:
            continue
        if _is_known(request):
            readable.append(signal)
            if _has_ids_of_their_length(signal, request):
                fitting.append(signal)
    likely = fitting or readable  # a request whose ids are all wrong is still to be named as what it is
    return likely[0] if len(likely) == 1 else None


def _is_known(message: Message) -> bool:
    if len(UnknownFieldSet(message)):
        return False
    for field, value in message.ListFields():
        if field.message_type is not None and not all(_is_known(m) for m in (value if field.is_repeated else (value,))):
            return False
    return True


def _has_ids_of_their_length(signal: Signal, request: Any) -> bool:
    if signal is Signal.METRICS:
        return any(m.WhichOneof("data") for r in request.resource_metrics for s in r.scope_metrics for m in s.metrics)
    if signal is Signal.TRACES:
        rows = [span for r in request.resource_spans for s in r.scope_spans for span in s.spans]
        return bool(rows) and all(len(row.trace_id) == 16 and len(row.span_id) == 8 for row in rows)
    rows = [record for r in request.resource_logs for s in r.scope_logs for record in s.log_records]
    return bool(rows) and all(len(row.trace_id) in (0, 16) and len(row.span_id) in (0, 8) for row in rows)


def _dead_letter_signal(path: Path) -> Signal | None:
    kind = Path(path.stem).suffix.removeprefix(".").upper() if path.suffix == ".otlp" else ""
    return Signal[kind] if kind in Signal.__members__ else None


class _Counted(io.RawIOBase):
    """A file that tells how far it was read, for the progress of a compressed one."""

    def __init__(self, file: BinaryIO, tell: Callable[[int], None]) -> None:
        self._file, self._tell, self.read_bytes = file, tell, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self._file.readinto(buffer)  # type: ignore[attr-defined]  # a file opened by Path.open has it
        self.read_bytes += count
        self._tell(self.read_bytes)
        return count


class _Decompressed(io.RawIOBase):
    """The content of a file; where its compressed data cannot be read on it ends, and `broken` says so."""

    def __init__(self, kind: str, read: Callable[[int], bytes], file: _Counted) -> None:
        self.broken = ""
        self._any = False
        self._kind, self._read, self._file = kind, read, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.broken:
            return 0
        try:
            data = self._read(len(buffer))
        except EOFError:
            self.broken = f"its {self._kind} data were cut off: the file ends at byte {self._file.read_bytes}"
            return 0
        except (zstandard.ZstdError, gzip.BadGzipFile, zlib.error) as error:
            self.broken = f"its {self._kind} data are damaged at or before byte {self._file.read_bytes} ({error})"
            return 0
        if not data and not self._any and self._kind:  # zstd's reader ends silently where a frame was cut off
            self.broken = (
                f"its {self._kind} data hold nothing, or were cut off: the file ends at byte {self._file.read_bytes}"
            )
        self._any = True
        buffer[: len(data)] = data
        return len(data)


class _Chained(io.RawIOBase):
    """Bytes that were read already, then the rest of their stream."""

    def __init__(self, start: bytes, rest: io.BufferedReader) -> None:
        self._start, self._rest = io.BytesIO(start), rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._start.readinto(buffer) or self._rest.readinto(buffer)
