"""Whether any code of a module ran between the end of its import and interactive.

Python 3.12 and later: `sys.monitoring`, one event for the first call of each code object. Python 3.11: a code object
counts its first calls in `co_warmup` until the interpreter specialises it, and that counter can be read. Either way a
self-test at the start decides whether it works in this interpreter; if not, nothing is said about use.

None means "cannot be known": a C extension has no code objects, and a counter that had run out tells nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

# Offset of `short co_warmup` in PyCodeObject of CPython 3.11 on 64-bit machines; the self-test checks it.
_CO_WARMUP_OFFSET: Final = 52
# At most so many code objects are watched: 100,000 cost about 20 ms to arm.
_MAX_CODES: Final = 100_000
_MAX_WRAPPERS: Final = 20  # decorators on one function; a cycle of them must come to an end
# In Python 3.11 a code object that was specialised during the import tells nothing. Up to this share of them the others
# speak for all: those of scipy.stats are 6,422, and 3 % of them are silent.
_MAX_SILENT_SHARE: Final = 0.05


class Snapshot:
    """The code objects of one import, as they were when it ended."""

    __slots__ = ("codes", "state")

    def __init__(self, codes: list[CodeType], state: Any) -> None:
        self.codes = codes
        self.state = state


def code_objects(modules: Iterable[ModuleType]) -> list[CodeType]:
    """The code objects of functions and methods that the modules themselves define."""
    found: list[CodeType] = []
    for module in modules:
        name = getattr(module, "__name__", None)
        names = vars(module)
        for value in list(names.values()):
            if isinstance(value, FunctionType):
                found.extend(_own_code(value, names))
            elif isinstance(value, type) and value.__module__ == name:
                found.extend(_methods(value, names))
        if len(found) > _MAX_CODES:
            break
    return found


def _methods(kind: type, names: dict[str, Any]) -> Iterable[CodeType]:
    for value in list(vars(kind).values()):
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        elif isinstance(value, property):
            value = value.fget
        if isinstance(value, FunctionType):
            yield from _own_code(value, names)


def _own_code(function: FunctionType, names: dict[str, Any]) -> Iterable[CodeType]:
    """The code that was written in the module: of a decorated function what is inside, not the decorator's wrapper.

    `functools.wraps` gives a wrapper the module's name, but its code is shared by all that the decorator was used on:
    any `contextlib.contextmanager` that runs anywhere would count as use of every module that has one.
    """
    value: Any = function
    for _ in range(_MAX_WRAPPERS):
        if not isinstance(value, FunctionType):
            return
        if value.__globals__ is names:
            yield value.__code__
            return
        value = value.__dict__.get("__wrapped__")


class WarmupCounter:
    """Python 3.11: compares `co_warmup` then and now."""

    def __init__(self) -> None:
        import ctypes

        self._read = ctypes.c_int16.from_address

    def arm(self, codes: list[CodeType]) -> Snapshot:
        read = self._read
        return Snapshot(codes, [read(id(code) + _CO_WARMUP_OFFSET).value for code in codes])

    def ran(self, snapshot: Snapshot) -> bool | None:
        read = self._read
        silent = 0
        for code, before in zip(snapshot.codes, snapshot.state, strict=True):
            if before == 0:  # specialised before the snapshot: it counts no more
                silent += 1
            elif read(id(code) + _CO_WARMUP_OFFSET).value != before:
                return True
        return False if silent <= _MAX_SILENT_SHARE * len(snapshot.codes) and snapshot.codes else None

    def close(self) -> None:
        return


class Monitor:
    """Python 3.12 and later: the interpreter tells of the first call of each armed code object."""

    def __init__(self) -> None:
        # sys.monitoring is unknown to the type checker's 3.11 view.
        self._monitoring: Any = vars(sys)["monitoring"]
        # By identity: code objects of two modules are equal when their text is.
        self._called: dict[int, int] = {}
        self._armed: dict[int, CodeType] = {}  # holds them, so that an id stays theirs
        self._clock = 0
        self._tool = next((t for t in (4, 3) if self._monitoring.get_tool(t) is None), -1)
        if self._tool < 0:
            raise RuntimeError("no monitoring tool id is free")
        self._monitoring.use_tool_id(self._tool, "hubscope")
        self._event = self._monitoring.events.PY_START
        self._monitoring.register_callback(self._tool, self._event, self._on_start)

    def _on_start(self, code: CodeType, offset: int) -> Any:
        self._clock += 1
        self._called[id(code)] = self._clock
        return self._monitoring.DISABLE

    def arm(self, codes: list[CodeType]) -> Snapshot:
        set_events, tool = self._monitoring.set_local_events, self._tool
        for code in codes:
            if id(code) in self._called:  # it told once and is silent since: make it tell again
                set_events(tool, code, 0)
            set_events(tool, code, self._event)
        self._armed.update((id(code), code) for code in codes)
        return Snapshot(codes, self._clock)

    def ran(self, snapshot: Snapshot) -> bool | None:
        if not snapshot.codes:
            return None
        return any(self._called.get(id(code), 0) > snapshot.state for code in snapshot.codes)

    def close(self) -> None:
        self._monitoring.register_callback(self._tool, self._event, None)
        for code in self._armed.values():  # freeing the id leaves them instrumented
            self._monitoring.set_local_events(self._tool, code, 0)
        self._armed.clear()
        self._called.clear()
        self._monitoring.free_tool_id(self._tool)


def _probe() -> FunctionType:
    """A function nobody has called."""
    namespace: dict[str, Any] = {}
    exec("def probe():\n    return None", namespace)  # noqa: S102 - a constant text of our own
    probe = namespace["probe"]
    assert isinstance(probe, FunctionType)
    return probe


def find_watch() -> WarmupCounter | Monitor | None:
    """What can be used here, proven on a function of our own, or None."""
    watch: WarmupCounter | Monitor | None = None
    try:
        if hasattr(sys, "monitoring"):
            watch = Monitor()
        elif sys.implementation.name == "cpython" and sys.version_info[:2] == (3, 11) and sys.maxsize > 2**32:
            watch = WarmupCounter()
        if watch is not None and _works(watch):
            return watch
    except Exception:  # noqa: BLE001 - whatever fails here, nothing is said about use
        pass
    if watch is not None:
        watch.close()
    return None


def _works(watch: WarmupCounter | Monitor) -> bool:
    probe = _probe()
    first = watch.arm([probe.__code__])
    if watch.ran(first) is not False:
        return False
    probe()
    if watch.ran(first) is not True:
        return False
    second = watch.arm([probe.__code__])
    if watch.ran(second) is not False:
        return False
    probe()
    return watch.ran(second) is True
