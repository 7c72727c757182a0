"""The import table is the application's: what the launcher and the measuring import stays out of it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hubscope.instrumentation.launch import prepare_environment
from hubscope.instrumentation.startup.imports import ImportRecorder
from tests.instrumentation.conftest import INSTRUMENT, SentSpan, Sink

WAYS = ["opentelemetry-instrument", "hubscope run"]
COMMANDS = {
    "a script": [sys.executable, "app.py"],
    "-m": [sys.executable, "-m", "shop"],
    "a console script": [str(Path(sys.executable).with_name("datasette")), "--version"],
}
MANY = 30
# argparse, email.parser and the rest of what launchers load are no imports of this program.
APP = "import threading, many\nt = threading.Thread(target=__import__, args=('in_a_thread',))\nt.start(); t.join()\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An application: a script, a package that `-m` runs, and a package of many small modules."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "in_a_thread.py").write_text("import wave\n")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("")
    (tmp_path / "shop" / "__main__.py").write_text(APP)
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "__init__.py").write_text("".join(f"import many.m{i}\n" for i in range(MANY)))
    for number in range(MANY):
        (tmp_path / "many" / f"m{number}.py").write_text("")
    return tmp_path


@pytest.fixture
def started(environ: Any, exporting_to: Any, sink: Sink, folder: Path) -> Callable[..., None]:
    """Run a command in the folder by one of the launchers, every import recorded."""

    def run(way: str, command: list[str], **more: str) -> None:
        if way == "hubscope run":
            wrapper: list[str] = []
            made = prepare_environment({**environ, **more}, endpoint=sink.endpoint, command=command)
        else:
            wrapper, made = [INSTRUMENT], exporting_to(sink.endpoint, **more)
        made["HUBSCOPE_IMPORT_THRESHOLD_MS"] = "0.0001"
        done = subprocess.run([*wrapper, *command], env=made, cwd=folder, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")

    return run


def imports(sink: Sink) -> dict[str, SentSpan]:
    found = [span for span in sink.spans if span.name.startswith("import ")]
    return {span.attributes["code.namespace"]: span for span in found if "error.type" not in span.attributes}


LEAVES_ITS_MODULES = "import atexit, sys; atexit.register(lambda: open('modules', 'w').write(' '.join(sys.modules)))"


def imported_alone(command: list[str], environ: dict[str, str], folder: Path) -> set[str]:
    """The modules that a command has when it ends and nothing measures it."""
    (folder / "alone").mkdir()
    (folder / "alone" / "sitecustomize.py").write_text(LEAVES_ITS_MODULES)
    alone = {**environ, "PYTHONPATH": str(folder / "alone")}
    subprocess.run(command, env=alone, cwd=folder, capture_output=True, check=True, timeout=60)
    return set((folder / "modules").read_text().split())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", COMMANDS)
def test_what_is_recorded_is_the_application_s(started, environ, sink, folder, way, kind):
    """Every import recorded is one the program makes without us too, and none begins before our set-up is done."""
    started(way, COMMANDS[kind])
    root, ours = sink.one("hub.startup"), sink.one("hub.startup.phase instrumentation")
    found = imports(sink)
    assert set(found) <= imported_alone(COMMANDS[kind], environ, folder)
    own = {"datasette.cli", "datasette.app"} if kind == "a console script" else {"many", "many.m29", "in_a_thread"}
    assert own <= set(found)
    every = [span for span in sink.spans if span.name.startswith("import ")]
    assert all(span.start_ns >= ours.end_ns for span in every)
    # The sums agree: the histogram is that of the imports that stand in no other.
    ids = {span.span_id for span in every}
    outermost_s = sum(span.duration_s for span in every if span.parent_span_id not in ids)
    (metric,) = sink.metrics["hub.import.duration"]
    (point,) = metric.exponential_histogram.data_points
    assert point.sum == pytest.approx(outermost_s, rel=0.02)
    interpreter_s = sink.one("hub.startup.phase interpreter").duration_s
    assert interpreter_s + ours.duration_s + outermost_s <= root.duration_s


def test_the_environment_s_own_sitecustomize_is_none_of_ours(started, sink, folder):
    """What a sitecustomize of the user's imports it imports without us too, and the start waits for it: recorded."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text("import for_this_site\n")
    (folder / "site" / "for_this_site.py").write_text("import wave\n")
    started("hubscope run", COMMANDS["a script"], PYTHONPATH=str(folder / "site"))
    assert {"for_this_site", "wave", "many"} <= set(imports(sink))


def frame_of(module: str, text: str) -> dict[str, Any]:
    """The names that code defines whose frames are a module's."""
    names: dict[str, Any] = {"__name__": module}
    exec(compile(text, module, "exec"), names)  # noqa: S102 - our own text, under the name of the module
    return names


def asked(call: Callable[[], object]) -> bool:
    """Whether an import that this call makes on a thread of its own is recorded as the application's."""
    recorder = ImportRecorder(0)
    recorder.install()
    thread = threading.Thread(target=call)
    thread.start()
    thread.join(10)
    recorder.close()
    return any(record.name == "hm_absent" for record in recorder.kept)


ASKS = "def ask():\n    try:\n        import hm_absent\n    except ImportError:\n        pass\n"
CALLS = "def calling(function):\n    def call(): return function()\n    return call\n"


@pytest.mark.parametrize(
    ("stack", "recorded"),
    [
        (["shop"], True),
        (["__main__", "shop"], True),
        ([""], True),
        (["hubscope.instrumentation.manual"], False),
        (["shop", "hubscope.instrumentation.manual"], False),
        (["shop", "hubscope.instrumentation.from_code", "importlib.metadata"], False),
        (["hubscope.instrumentation.auto", "opentelemetry.instrumentation.dependencies", "importlib.metadata"], False),
        (["opentelemetry.instrumentation.auto_instrumentation._load", "importlib.metadata", "email"], False),
        (["opentelemetry.sdk._shared_internal", "requests.sessions"], False),
        (["opentelemetry.instrumentation.auto_instrumentation", "wrapt"], False),
        (["sitecustomize", "hubscope.instrumentation.auto", "pkg_resources"], False),
        # Near misses: a wrapper of theirs around the application's own function, and names that only look like theirs.
        (["opentelemetry.instrumentation.threading", "shop"], True),
        (["opentelemetry.instrumentation.threading", "importlib"], True),
        (["hubscope.instrumentation.manual", "shop"], True),
        (["shop", "hubscope.instrumentation.libraries.pluggy", "pluggy._manager", "importlib.metadata"], True),
        (["opentelemetry_demo.shop"], True),
        (["hubscopes"], True),
        (["sitecustomize"], True),
    ],
)
def test_the_stack_says_whose_import_it_is(stack, recorded):
    """From the far end to the near one: the nearest frame outside the standard library asks, unless a worker began."""
    call = frame_of(stack[-1], ASKS)["ask"]
    for module in reversed(stack[:-1]):
        call = frame_of(module, CALLS)["calling"](call)
    assert asked(call) is recorded


def test_what_an_import_of_ours_brings_is_ours(tmp_path, monkeypatch):
    """Below an import that measuring made, modules of any name are left out, and the totals do not hold them."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "hm_brought.py").write_text("import hm_below\n")
    (tmp_path / "hm_below.py").write_text("")
    recorder = ImportRecorder(0)
    recorder.install()
    try:
        frame_of("opentelemetry.instrumentation.x", "def ask(): import hm_brought\n")["ask"]()
    finally:
        recorder.close()
        for name in ("hm_brought", "hm_below"):
            sys.modules.pop(name, None)
    assert (recorder.kept, recorder.outermost_ns, recorder.active) == ([], 0, set())
