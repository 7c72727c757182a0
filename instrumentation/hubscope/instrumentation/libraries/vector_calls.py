"""A search or write of a vector library, measured: what every library's instrumentation does around a call.

Each library says what a call is (`Call`); no vector, text or filter is read, only their sizes. Inside a block by hand,
or of a library above, the call makes no second span and completes that one.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Sized
from typing import Any, Final, NamedTuple

from opentelemetry.context import get_value

from hubscope.instrumentation import manual, signals
from hubscope.instrumentation.libraries.patches import Patches

_log = logging.getLogger("hubscope")
# What the libraries call their distances -> the word that all of them share.
METRICS: Final = {
    "cos": "cosine", "cosine": "cosine", "l2": "l2", "l2sq": "l2", "euclid": "l2", "euclidean": "l2", "ip": "ip",
    "dot": "ip", "hamming": "hamming",
}  # fmt: skip


class Call(NamedTuple):
    """One call of a library; what is not known is None. `batch_size` is of vectors searched for, or written."""

    system: str
    collection: str
    search: bool = True
    top_k: int | None = None
    dimensions: int | None = None
    metric: str | None = None
    index_type: str | None = None
    size: int | None = None
    filtered: bool = False
    batch_size: int | None = None
    in_process: bool = True


# The object, its positional and named arguments -> what the call is; None where it is no search or write of vectors.
Describe = Callable[[Any, tuple[Any, ...], dict[str, Any]], Call | None]


class VectorPatches(Patches):
    """The methods of a vector library that were put in."""

    def measure(self, owner: Any, name: str, describe: Describe) -> None:
        """Measure the method that `owner` itself defines; nothing where it defines none, or where it is measured."""
        self.put(owner, name, lambda original: _measured(original, describe, self))


def argument(args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str, default: Any = None) -> Any:
    """An argument given by position or by name."""
    return args[position] if len(args) > position else kwargs.get(name, default)


def rows(vectors: Any) -> int:
    """How many vectors there are: rows of an array or list of lists, else 1."""
    shape = getattr(vectors, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) == 2 else 1
    if isinstance(vectors, (list, tuple)) and vectors and isinstance(vectors[0], Sized):
        return len(vectors)
    return 1


def dimensions(vectors: Any) -> int | None:
    """How long the vectors are, or None where they are no vectors (text to be embedded, the id of a point)."""
    shape = getattr(vectors, "shape", None)
    if shape is not None:
        return int(shape[-1]) if len(shape) else None
    if not isinstance(vectors, (list, tuple)) or not vectors:
        return None
    first = vectors[0]
    if isinstance(first, (int, float)):
        return len(vectors)
    if isinstance(first, (str, bytes, dict)):
        return None
    if isinstance(first, (list, tuple)) or hasattr(first, "shape"):
        return dimensions(first)
    return len(first) if isinstance(first, Sized) else None  # an Arrow array


def _block(describe: Describe, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The block to measure the call in; None where it is not to be measured by itself."""
    if signals.handles() is None or get_value("suppress_instrumentation"):
        return None
    try:
        call = describe(instance, args, kwargs)
        if call is None:
            return None
        # OpenTelemetry: the batch size is set only where it is 2 or more
        batch_size = call.batch_size if call.batch_size is None or call.batch_size > 1 or not call.search else None
        if call.search:
            block = manual.vector_search(
                call.collection,
                top_k=call.top_k,
                dimensions=call.dimensions,
                metric=METRICS.get(str(call.metric).lower(), call.metric),
                index_type=call.index_type,
                size=call.size,
                filtered=call.filtered,
                system=call.system,
                batch_size=batch_size,
            )
        else:
            block = manual.vector_upsert(call.collection, batch_size=batch_size or 1, system=call.system)
        running = manual.running_vector_block()
        if running is not None:
            running.complete(block.attributes)
            return None
        block.client = not call.in_process
        return block
    except Exception:  # noqa: BLE001 - the call runs unmeasured
        _log.debug("a vector call is not measured", exc_info=True)
        return None


def _measured(original: Callable[..., Any], describe: Describe, patches: Patches) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            block = _block(describe, self, args, kwargs) if patches.on else None
            if block is None:
                return await original(self, *args, **kwargs)
            with block:
                return await original(self, *args, **kwargs)

    else:

        @functools.wraps(original)
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            block = _block(describe, self, args, kwargs) if patches.on else None
            if block is None:
                return original(self, *args, **kwargs)
            with block:
                return original(self, *args, **kwargs)

    return method
