"""Import times as a tree, one a thread, by standing in for `importlib`'s own `_find_and_load`.

The interpreter calls that function once for each module that is not loaded yet, and looks it up by name each time; so
a stand-in sees every real import with its search time, costs nothing for modules that are already loaded, and leaves
loaders, specs and `builtins.__import__` as they are. Finders that wrap loaders were not chosen because the wrapped
loader stays visible in `__spec__` and breaks `pkgutil.get_data` and `importlib.resources` in some packages.

What the launcher and the measuring import (`owner`) is left out with everything below it. A module that they imported
first and the application would have imported anyway is therefore in nobody's table: it was there already when the
application asked for it, and its time is in the `instrumentation` phase.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from time import perf_counter_ns, time_ns
from types import ModuleType
from typing import Any

from hubscope.instrumentation.startup import owner, usage

# Private: the type checker knows nothing of what is in it.
_bootstrap: Any = importlib._bootstrap


class Import:
    """One import: times in nanoseconds of the recorder's clock, `self_ns` without the imports within it."""

    __slots__ = (
        "children_ns",
        "context",
        "end_ns",
        "error",
        "measuring",
        "modules",
        "name",
        "parent",
        "snapshot",
        "start_ns",
    )

    def __init__(self, name: str, parent: Import | None, context: Any, start_ns: int) -> None:
        self.name = name
        self.parent = parent
        self.context = context
        self.start_ns = start_ns
        self.end_ns = 0
        self.children_ns = 0
        self.error: str | None = None
        # Caused by measuring, as is all below it: not the application's.
        self.measuring: bool = parent is not None and parent.measuring
        # The modules loaded within it: whose code counts as this import's own.
        self.modules: list[str] = [name]
        self.snapshot: usage.Snapshot | None = None

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns

    @property
    def self_ns(self) -> int:
        return max(0, self.duration_ns - self.children_ns)


class ImportRecorder:
    """Records the application's imports from `install` to `uninstall`; keeps those of at least `threshold_ns`.

    `context_of` gives the OpenTelemetry context in which an outermost import began.
    """

    def __init__(self, threshold_ns: int, context_of: Callable[[], Any] = lambda: None) -> None:
        self.threshold_ns = threshold_ns
        self.kept: list[Import] = []
        self.outermost_ns = 0  # time of the application's outermost imports, all threads
        self.active: set[Import] = set()
        self._context_of = context_of
        self._local = threading.local()
        self._loading: dict[str, int] = {}
        self._offset_ns = time_ns() - perf_counter_ns()
        self._original: Callable[..., ModuleType] | None = None
        self._installed: Callable[..., ModuleType] | None = None
        self._on = False
        self._watch = usage.find_watch()

    def unix_nano(self, clock_ns: int) -> int:
        """A time of the recorder's clock as nanoseconds since 1970."""
        return clock_ns + self._offset_ns

    def install(self) -> bool:
        """Begin; False where this interpreter has no such function."""
        original = getattr(_bootstrap, "_find_and_load", None)
        if original is None:
            return False
        self._on = True
        if self._installed is None:
            self._original = original
            self._installed = _bootstrap._find_and_load = self._stand_in(original)
        return True

    def uninstall(self) -> None:
        """End, and put importlib's own function back."""
        self._on = False
        # Somebody else may stand in front of us by now: then ours stays, and only passes on.
        if self._installed is not None and _bootstrap._find_and_load is self._installed:
            _bootstrap._find_and_load = self._original
            self._original = self._installed = None

    def used(self, record: Import) -> bool | None:
        """Whether code of the import ran since it ended; None where that cannot be known."""
        if self._watch is None or record.snapshot is None:
            return None
        return self._watch.ran(record.snapshot)

    def close(self) -> None:
        """Let go of the watched code."""
        self.uninstall()
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _stand_in(self, original: Callable[..., ModuleType]) -> Callable[..., ModuleType]:
        begin, end = self._begin, self._end

        def find_and_load(name: str, import_: Any) -> ModuleType:
            record = begin(name)
            try:
                module = original(name, import_)
            except BaseException as error:
                end(record, type(error).__qualname__)
                raise
            end(record, None)
            return module

        # The interpreter cuts importlib's frames out of an ImportError's traceback by their file name; under any other
        # name every traceback of a failed import would show a frame of ours.
        find_and_load.__code__ = find_and_load.__code__.replace(co_filename=original.__code__.co_filename)
        return find_and_load

    def _begin(self, name: str) -> Import | None:
        if not self._on:
            return None
        thread = threading.get_ident()
        if self._loading.setdefault(name, thread) != thread:
            return None  # another thread loads it and this one waits: one import, not two
        local = self._local
        stack: list[Import] = local.__dict__.setdefault("stack", [])
        parent = stack[-1] if stack else None
        record = Import(name, parent, None if parent else self._context_of(), perf_counter_ns())
        if parent is None:
            # Past the stand-in: who asked. None where the interpreter itself did (runpy, for -m).
            record.measuring = owner.is_measuring(sys._getframe(1).f_back)
        stack.append(record)
        if not record.measuring:
            self.active.add(record)
        return record

    def _end(self, record: Import | None, error: str | None) -> None:
        if record is None:
            return
        record.end_ns = perf_counter_ns()
        record.error = error
        self._loading.pop(record.name, None)
        self.active.discard(record)
        stack: list[Import] = self._local.stack
        if stack and stack[-1] is record:
            stack.pop()
        if record.measuring:
            return
        parent = record.parent
        if parent is None:
            self.outermost_ns += record.duration_ns
        else:
            parent.children_ns += record.duration_ns
            parent.modules += record.modules
        if record.duration_ns >= self.threshold_ns:
            self.kept.append(record)
            if self._watch is not None and error is None:
                package = record.name.partition(".")[0]
                names = {n for n in record.modules if n.partition(".")[0] == package}
                modules = [m for m in map(sys.modules.get, names) if isinstance(m, ModuleType)]
                record.snapshot = self._watch.arm(usage.code_objects(modules))
