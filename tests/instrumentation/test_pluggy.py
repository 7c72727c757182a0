"""Hook calls split by plugin."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
from collections.abc import Iterator

import pluggy
import pytest
from opentelemetry.trace import use_span

from hubscope.instrumentation.libraries.pluggy import PluggyInstrumentor

spec, impl = pluggy.HookspecMarker("hub"), pluggy.HookimplMarker("hub")


class Specs:
    @spec
    def answer(self, question): ...


class Quick:
    @impl
    def answer(self, question):
        return question


class Slow:
    @impl
    def answer(self, question):
        end = time.thread_time() + 0.003
        while time.thread_time() < end:
            pass
        return "slow"


class Broken:
    @impl
    def answer(self, question):
        raise LookupError(question)


class OldWrapper:
    @impl(hookwrapper=True)
    def answer(self, question):
        outcome = yield
        outcome.force_result([*outcome.get_result(), "old"])


class NewWrapper:
    @impl(wrapper=True)
    def answer(self, question):
        try:
            return [*(yield), "new"]
        except LookupError:
            return ["rescued"]


class Later:
    @impl
    def answer(self, question):
        async def inner():
            await asyncio.sleep(0)
            return "later"

        return inner


@pytest.fixture
def measured(recorded) -> Iterator[None]:
    """pluggy measured for one test."""
    PluggyInstrumentor().instrument()
    yield
    PluggyInstrumentor().uninstrument()


def _manager(*plugins: object) -> pluggy.PluginManager:
    manager = pluggy.PluginManager("hub")
    manager.add_hookspecs(Specs)
    for plugin in plugins:
        manager.register(plugin, type(plugin).__name__.lower())
    return manager


def _points(recorded) -> dict[str, int]:
    points = recorded.metrics()["hub.plugin.call.duration"]  # pytest's own hooks are among them
    return {p.attributes["hub.plugin.id"]: p.count for p in points if p.attributes["hub.plugin.hook"] == "answer"}


def test_each_plugin_is_told_apart(measured, recorded):
    """Every call is in the metric by plugin and hook; only the one that took its time has a span, with its CPU time."""
    assert sorted(_manager(Quick(), Slow()).hook.answer(question="q")) == ["q", "slow"]
    assert _points(recorded) == {"quick": 1, "slow": 1}
    span = recorded.one("plugin slow answer")
    assert span.attributes["hub.plugin.cpu_time"] >= 0.003
    assert span.attributes["hub.plugin.isolation"] == "in_process"
    assert span.end_time - span.start_time >= 3_000_000


def test_a_plugin_that_fails_has_a_span_however_short(measured, recorded):
    """The exception goes on to the caller, and its class is on the span."""
    with pytest.raises(LookupError):
        _manager(Broken()).hook.answer(question="q")
    assert recorded.one("plugin broken answer").attributes["error.type"] == "LookupError"


def test_a_short_call_with_a_child_is_its_parent(measured, recorded):
    """A call too short for a span of its own gets one when something inside makes a span."""

    class Asking:
        @impl
        def answer(self, question):
            recorded.handles.tracer.start_span("child").end()

    _manager(Asking()).hook.answer(question="q")
    assert recorded.one("child").parent.span_id == recorded.one("plugin asking answer").context.span_id


def test_wrappers_of_both_kinds_work_and_are_measured(measured, recorded):
    """Hook wrappers change results and rescue errors as before; a rescued error is not the wrapper's failure."""
    assert _manager(Quick(), OldWrapper(), NewWrapper()).hook.answer(question="q") == ["q", "old", "new"]
    assert _manager(Broken(), NewWrapper()).hook.answer(question="q") == ["rescued"]
    assert _points(recorded) == {"quick": 1, "oldwrapper": 1, "newwrapper": 2, "broken": 1}
    failed = [span.name for span in recorded.spans if "error.type" in span.attributes]
    assert failed == ["plugin broken answer"]


def test_an_answer_given_later_is_measured_when_it_is_awaited(measured, recorded):
    """Datasette's idiom: a hook returns an async function that the host calls; both parts count."""
    [answer] = _manager(Later()).hook.answer(question="q")
    assert asyncio.run(answer()) == "later"
    assert _points(recorded) == {"later": 2}


def test_plugins_registered_before_are_measured_and_all_are_given_back(recorded):
    """Instrumenting reaches managers that exist already; un-instrumenting restores every function."""
    plugin = Quick()
    manager = _manager(plugin)
    before = manager.hook.answer.get_hookimpls()[0].function
    PluggyInstrumentor().instrument()
    late = Slow()
    manager.register(late, "late")
    manager.hook.answer(question="q")
    PluggyInstrumentor().uninstrument()
    assert _points(recorded) == {"quick": 1, "late": 1}
    functions = [found.function for found in manager.hook.answer.get_hookimpls()]
    assert functions == [before, late.answer]


def test_an_unnamed_plugin_is_called_by_its_class(measured, recorded):
    """pluggy names an unnamed object by its address, which would be another plugin in each run."""
    manager = pluggy.PluginManager("hub")
    manager.add_hookspecs(Specs)
    manager.register(Slow())
    manager.hook.answer(question="q")
    assert list(_points(recorded)) == ["Slow"]


def test_a_task_that_outlives_a_short_call(measured, recorded):
    """A span made after the call has ended goes to the call's parent: no span is named as parent that nobody sends."""
    go = threading.Event()
    threads = []

    class Starting:
        @impl
        def answer(self, question):
            context = contextvars.copy_context()

            def late() -> None:
                go.wait(10)
                context.run(lambda: recorded.handles.tracer.start_span("late").end())

            threads.append(threading.Thread(target=late))
            threads[0].start()

    parent = recorded.handles.tracer.start_span("request")
    with use_span(parent, end_on_exit=True):
        _manager(Starting()).hook.answer(question="q")
    go.set()
    threads[0].join(10)
    known = {span.context.span_id for span in recorded.spans}
    late = recorded.one("late")
    assert late.parent.span_id in known
    assert late.context.trace_id == parent.get_span_context().trace_id


def test_plugins_are_counted_once_and_while_their_manager_lives(measured, recorded):
    """Two managers with a plugin in common count it once; blocked names and managers that are gone do not count."""
    gc.collect()  # managers of other tests
    before = _installed(recorded)
    shared = Quick()
    first, second = _manager(shared, Slow()), _manager(shared)
    second.set_blocked("blocked")
    assert _installed(recorded) == before + 2
    first.unregister(name="slow")
    assert _installed(recorded) == before + 1
    del first, second
    gc.collect()
    assert _installed(recorded) == before


def _installed(recorded) -> int:
    [point] = recorded.metrics()["hub.plugins.installed"]  # pytest's own plugins are among them
    return int(point.value)


def test_the_version_of_a_plugin_is_that_of_its_distribution(measured, recorded, tmp_path, monkeypatch):
    """A plugin that an entry point brought tells its distribution's version, one registered by hand none."""
    info = tmp_path / "hub_plugin_dist-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hub-plugin-dist\nVersion: 3.1\n")
    (info / "entry_points.txt").write_text("[hub]\nbrought = hub_plugin_of_this_test\n")
    (tmp_path / "hub_plugin_of_this_test.py").write_text(
        "import pluggy\n@pluggy.HookimplMarker('hub')\ndef answer(question):\n    raise LookupError\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    manager = _manager(NewWrapper(), Slow())
    assert manager.load_setuptools_entrypoints("hub") == 1
    manager.hook.answer(question="q")
    assert recorded.one("plugin brought answer").attributes["hub.plugin.version"] == "3.1"
    manager.unregister(name="brought")
    manager.hook.answer(question="q")
    assert all(
        "hub.plugin.version" not in span.attributes for span in recorded.spans if span.name == "plugin slow answer"
    )
