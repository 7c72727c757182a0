"""The data points of metrics and their exemplars."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from struct import Struct
from typing import Any, Final

from hubscope.exporters.encoding import losses
from hubscope.exporters.encoding.attributes import FIELD_1, FIELD_7, FIELD_9, plain
from hubscope.exporters.encoding.wire import (
    FIXED64,
    LENGTH,
    VARINT,
    double,
    field,
    fixed64,
    signed_fixed64,
    tag,
    varint,
    varints,
    zigzag,
)

# The same in the points of numbers, histograms and exponential histograms
_START: Final = tag(2, FIXED64)
_TIME: Final = tag(3, FIXED64)
_COUNT: Final = tag(4, FIXED64)
_SUM: Final = tag(5, FIXED64)
# NumberDataPoint
_AS_DOUBLE: Final = tag(4, FIXED64)
_AS_INT: Final = tag(6, FIXED64)
_NUMBER_EXEMPLAR: Final = tag(5, LENGTH)
# HistogramDataPoint
_BUCKET_COUNTS: Final = tag(6, LENGTH)
_BOUNDS: Final = tag(7, LENGTH)
_HISTOGRAM_EXEMPLAR: Final = tag(8, LENGTH)
_HISTOGRAM_MIN: Final = tag(11, FIXED64)
_HISTOGRAM_MAX: Final = tag(12, FIXED64)
# ExponentialHistogramDataPoint
_SCALE: Final = tag(6, VARINT)
_ZERO_COUNT: Final = tag(7, FIXED64)
_POSITIVE: Final = tag(8, LENGTH)
_NEGATIVE: Final = tag(9, LENGTH)
_POINT_FLAGS: Final = tag(10, VARINT)
_EXPONENTIAL_EXEMPLAR: Final = tag(11, LENGTH)
_EXPONENTIAL_MIN: Final = tag(12, FIXED64)
_EXPONENTIAL_MAX: Final = tag(13, FIXED64)
# Buckets
_OFFSET: Final = tag(1, VARINT)
_COUNTS: Final = tag(2, LENGTH)
# Exemplar
_EXEMPLAR_TIME: Final = tag(2, FIXED64)
_EXEMPLAR_DOUBLE: Final = tag(3, FIXED64)
_EXEMPLAR_SPAN_ID: Final = tag(4, LENGTH) + varint(8)
_EXEMPLAR_TRACE_ID: Final = tag(5, LENGTH) + varint(16)
_EXEMPLAR_INT: Final = tag(6, FIXED64)

_times: Final = Struct("<cQcQ").pack
_beginning: Final = Struct("<cQcQcQcd").pack  # start, time, count, sum
_extremes: Final = Struct("<cdcd").pack

# What a histogram's points repeat, kept by the bounds' identity: the SDK gives the same tuple each time. It is kept
# too, so that no other can take its id. 256 of 15 bounds are 0.1 MB, and as many numbers of buckets 0.05.
MAX_BOUNDS: Final = 256
_bounds: Final[dict[int, tuple[Sequence[float], bytes]]] = {}
_counts: Final[dict[int, Callable[..., bytes]]] = {}  # by number of buckets


def gauge(point: Any) -> bytes:
    """A NumberDataPoint without a start, as the stock encoder has it."""
    return _number(point, _TIME + fixed64(point.time_unix_nano or 0))


def total(point: Any) -> bytes:
    """A NumberDataPoint with a start."""
    return _number(point, _times(_START, point.start_time_unix_nano or 0, _TIME, point.time_unix_nano or 0))


def _number(point: Any, times: bytes) -> bytes:
    value = point.value
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        written = _AS_INT + signed_fixed64(value)
    else:
        if isinstance(value, int):
            losses.replaced("integer", "beyond 64 bits", "the nearest float")
        written = _AS_DOUBLE + double(value)
    parts = [times, written]
    if point.exemplars:
        _write_exemplars(_NUMBER_EXEMPLAR, point.exemplars, parts.append)
    attributes = point.attributes
    FIELD_7.write(attributes if type(attributes) is dict else plain(attributes), parts.append)
    return b"".join(parts)


def histogram(point: Any) -> bytes:
    """A HistogramDataPoint."""
    parts = [_times_count_sum(point)]
    append = parts.append
    counts, bounds = point.bucket_counts, point.explicit_bounds
    least, most, attributes = point.min, point.max, point.attributes
    if counts:
        size = len(counts)
        append((_counts.get(size) or _counts_of(size))(*counts))
    if bounds:
        known = _bounds.get(id(bounds))
        append(_bounds_of(bounds) if known is None else known[1])
    if point.exemplars:
        _write_exemplars(_HISTOGRAM_EXEMPLAR, point.exemplars, append)
    FIELD_9.write(attributes if type(attributes) is dict else plain(attributes), append)
    if least is not None and most is not None:
        append(_extremes(_HISTOGRAM_MIN, least, _HISTOGRAM_MAX, most))
    elif least is not None:
        append(_HISTOGRAM_MIN + double(least))
    elif most is not None:
        append(_HISTOGRAM_MAX + double(most))
    return b"".join(parts)


def exponential_histogram(point: Any) -> bytes:
    """An ExponentialHistogramDataPoint."""
    parts: list[bytes] = []
    FIELD_1.write(plain(point.attributes), parts.append)
    parts.append(_times_count_sum(point))
    if point.scale:
        parts.append(_SCALE + zigzag(point.scale))
    if point.zero_count:
        parts.append(_ZERO_COUNT + fixed64(point.zero_count))
    if point.positive.bucket_counts:
        parts.append(_buckets(_POSITIVE, point.positive))
    if point.negative.bucket_counts:
        parts.append(_buckets(_NEGATIVE, point.negative))
    if point.flags:
        parts.append(_POINT_FLAGS + varint(point.flags))
    if point.exemplars:
        _write_exemplars(_EXPONENTIAL_EXEMPLAR, point.exemplars, parts.append)
    if point.min is not None:
        parts.append(_EXPONENTIAL_MIN + double(point.min))
    if point.max is not None:
        parts.append(_EXPONENTIAL_MAX + double(point.max))
    return b"".join(parts)


def _buckets(tag_of_side: bytes, buckets: Any) -> bytes:
    counts = varints(buckets.bucket_counts)
    content = b"".join((_OFFSET, zigzag(buckets.offset), _COUNTS, varint(len(counts)), counts))
    return tag_of_side + varint(len(content)) + content


def _times_count_sum(point: Any) -> bytes:
    start_ns, time_ns, total = point.start_time_unix_nano or 0, point.time_unix_nano or 0, point.sum
    if total is None:
        return _times(_START, start_ns, _TIME, time_ns) + _COUNT + fixed64(point.count)
    return _beginning(_START, start_ns, _TIME, time_ns, _COUNT, point.count, _SUM, total)


def _counts_of(size: int) -> Callable[..., bytes]:
    """Writes the field of so many bucket counts."""
    before = _BUCKET_COUNTS + varint(8 * size)
    pack = partial(Struct(f"<{len(before)}s{size}Q").pack, before)
    if len(_counts) < MAX_BOUNDS:
        _counts[size] = pack
    return pack


def _bounds_of(bounds: Sequence[float]) -> bytes:
    written = field(_BOUNDS, Struct(f"<{len(bounds)}d").pack(*bounds))
    if type(bounds) is tuple and len(bounds) <= 256:  # a list may be changed
        if len(_bounds) >= MAX_BOUNDS:
            _bounds.clear()
        _bounds[id(bounds)] = (bounds, written)
    return written


def _write_exemplars(tag_of_point: bytes, exemplars: Iterable[Any], append: Callable[[bytes], object]) -> None:
    for exemplar in exemplars:
        try:
            append(field(tag_of_point, _exemplar(exemplar)))
        except Exception as error:  # noqa: BLE001 - an odd exemplar is no reason to lose its point
            losses.left_out("exemplar", type(exemplar).__name__, error)


def _exemplar(exemplar: Any) -> bytes:
    value = exemplar.value
    parts = [_EXEMPLAR_TIME, fixed64(exemplar.time_unix_nano or 0)]
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        parts.append(_EXEMPLAR_INT + signed_fixed64(value))
    else:
        parts.append(_EXEMPLAR_DOUBLE + double(value))
    if exemplar.span_id is not None and exemplar.trace_id is not None:
        parts += (_EXEMPLAR_SPAN_ID, exemplar.span_id.to_bytes(8, "big"))
        parts += (_EXEMPLAR_TRACE_ID, exemplar.trace_id.to_bytes(16, "big"))
    FIELD_7.write(plain(exemplar.filtered_attributes), parts.append)
    return b"".join(parts)
