"""The import recorder, on real modules in this process."""

from __future__ import annotations

import importlib
import importlib._bootstrap as bootstrap
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubscope.instrumentation.startup import usage
from hubscope.instrumentation.startup.imports import ImportRecorder


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder on sys.path; what is imported from it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("hm_"):
            del sys.modules[name]


@pytest.fixture
def recorder() -> Iterator[ImportRecorder]:
    """A recorder that keeps every import."""
    made = ImportRecorder(0)
    assert made.install()
    yield made
    made.close()


def test_a_tree_with_self_times(modules, recorder):
    """Imports within an import are its children, and its self time is without them."""
    (modules / "hm_outer.py").write_text("import time; time.sleep(0.01); import hm_inner")
    (modules / "hm_inner.py").write_text("import time; time.sleep(0.02)")
    importlib.import_module("hm_outer")
    recorder.uninstall()
    outer, inner = (next(r for r in recorder.kept if r.name == name) for name in ("hm_outer", "hm_inner"))
    assert inner.parent is outer
    assert outer.duration_ns > inner.duration_ns >= 20_000_000
    assert outer.self_ns == outer.duration_ns - outer.children_ns
    assert 10_000_000 <= outer.self_ns <= outer.duration_ns - inner.duration_ns
    assert recorder.outermost_ns >= outer.duration_ns


def test_loaded_modules_and_short_imports_leave_nothing(modules):
    """A module that is there already is not recorded, and one below the threshold is not kept."""
    recorder = ImportRecorder(10_000_000_000)
    recorder.install()
    (modules / "hm_short.py").write_text("")
    importlib.import_module("json")
    importlib.import_module("hm_short")
    recorder.close()
    assert recorder.kept == []
    assert recorder.outermost_ns > 0


def test_an_error_looks_as_without_us(modules, recorder):
    """A failed import raises the same error with the same traceback, and is recorded with its class."""

    def failed() -> list[str]:
        try:
            import hm_missing  # noqa: F401 - the import is the test
        except ModuleNotFoundError as error:
            return [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        raise AssertionError

    with_us = failed()
    recorder.uninstall()
    assert failed() == with_us == [__file__]
    assert [(r.name, r.error) for r in recorder.kept] == [("hm_missing", "ModuleNotFoundError")]


def test_threads_do_not_mix(modules, recorder):
    """Imports of two threads at the same time are two trees; a thread that waits for another's import makes none."""
    (modules / "hm_slow.py").write_text("import time; time.sleep(0.05)")
    (modules / "hm_other.py").write_text("import time; time.sleep(0.05)")
    names = ("hm_slow", "hm_slow", "hm_other")
    barrier = threading.Barrier(len(names))

    def load(name: str) -> None:
        barrier.wait(10)
        importlib.import_module(name)

    threads = [threading.Thread(target=load, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(r.name for r in recorder.kept if r.name.startswith("hm_")) == ["hm_other", "hm_slow"]
    assert all(r.parent is None for r in recorder.kept if r.name.startswith("hm_"))


def test_uninstalling_gives_importlib_its_function_back():
    """Nothing stays patched, loaders and specs never were."""
    before = bootstrap._find_and_load
    recorder = ImportRecorder(0)
    recorder.install()
    assert bootstrap._find_and_load is not before
    recorder.close()
    assert bootstrap._find_and_load is before


def test_a_later_patch_of_somebody_else_is_left_in_place(modules, monkeypatch):
    """Who patches importlib after us keeps their patch when we leave, and we record nothing more."""
    recorder = ImportRecorder(0)
    monkeypatch.setattr(bootstrap, "_find_and_load", bootstrap._find_and_load)  # given back after the test
    recorder.install()
    ours = bootstrap._find_and_load

    def theirs(name, import_):
        return ours(name, import_)

    bootstrap._find_and_load = theirs
    recorder.close()
    assert bootstrap._find_and_load is theirs
    (modules / "hm_quiet.py").write_text("")
    importlib.import_module("hm_quiet")
    assert not [record for record in recorder.kept if record.name == "hm_quiet"]


def test_use_after_the_import_counts_and_use_during_it_does_not(modules, recorder):
    """Code that ran only while its module was imported is unused; without code objects nothing is said."""
    if usage.find_watch() is None:
        pytest.skip("this interpreter does not tell whether code ran")
    (modules / "hm_used.py").write_text("def f(): return 1\nclass C:\n    def m(self): return 2\nf()\n")
    (modules / "hm_unused.py").write_text("def f(): return 1\nf()\nf()\n")
    (modules / "hm_data.py").write_text("X = 1\n")
    (modules / "hm_caller.py").write_text("import hm_helper\nhm_helper.f()\n")
    (modules / "hm_helper.py").write_text("def f(): return 1\n")
    used = importlib.import_module("hm_used")
    for name in ("hm_unused", "hm_data", "hm_caller"):
        importlib.import_module(name)
    used.C().m()
    said = {r.name: recorder.used(r) for r in recorder.kept if r.name.startswith("hm_")}
    assert said == {"hm_used": True, "hm_unused": False, "hm_data": None, "hm_caller": None, "hm_helper": True}
