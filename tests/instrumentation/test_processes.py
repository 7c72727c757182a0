"""Whole programs, measured as users measure them."""

from __future__ import annotations

import importlib.metadata
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from hubscope.instrumentation.launch import prepare_environment

INSTRUMENT = str(Path(sys.executable).with_name("opentelemetry-instrument"))

HUB = """
import sqlite3, slow_module
from hubscope import instrumentation as hub
with hub.phase("schema"):
    import slow_in_phase
    con = sqlite3.connect("hub.db")
    con.execute("create table memories (id integer primary key, text text)")
hub.first_render()
hub.interactive()
with hub.task("recall", persona="ada"):
    con.execute("select text from memories where text <> 'hidden' and id < ?", (10,)).fetchall()
"""


def _write_modules(folder: Path) -> None:
    (folder / "slow_module.py").write_text("import time, slow_inner\ntime.sleep(0.01)\ndef never(): pass\n")
    (folder / "slow_inner.py").write_text("import time\ntime.sleep(0.02)\n")
    (folder / "slow_in_phase.py").write_text("import time\ntime.sleep(0.02)\n")


@pytest.mark.parametrize("way", ["opentelemetry-instrument", "hubscope run"])
def test_a_start_from_process_creation_to_interactive(run_app, exporting_to, environ, sink, tmp_path, way):
    """One trace holds the start: interpreter, set-up, imports as a tree with self times, phases, first render."""
    _write_modules(tmp_path)
    if way == "hubscope run":
        began_ns = time.time_ns()
        finished = run_app(HUB, prepare_environment(environ, endpoint=sink.endpoint, command=["app"]), wrapper=())
    else:
        began_ns = time.time_ns()
        finished = run_app(HUB, exporting_to(sink.endpoint))
    assert (finished.code, finished.out, finished.err) == (0, "", "")
    root = sink.one("hub.startup")
    assert root.parent_span_id == b""
    # The kernel counts in ticks of 10 ms, and the boot clock is read a moment later.
    assert abs(root.start_ns - began_ns) < 2e9
    assert root.start_ns > began_ns - 20_000_000
    assert root.attributes["hub.startup.end"] == "interactive"
    assert root.attributes["hub.startup.origin"] == "launcher"
    assert root.attributes["hub.startup.type"] in ("cold", "warm")
    assert root.resource["service.name"] == "app"
    assert len(root.resource["service.instance.id"]) == 36
    phases = ("interpreter", "instrumentation", "schema")
    assert all(sink.one(f"hub.startup.phase {name}").parent_span_id == root.span_id for name in phases)
    assert sink.one("hub.startup.first_render").parent_span_id == root.span_id
    outer, inner = sink.one("import slow_module"), sink.one("import slow_inner")
    assert inner.parent_span_id == outer.span_id
    assert outer.parent_span_id == root.span_id
    assert outer.duration_s >= 0.03
    assert 0.01 <= outer.attributes["hub.import.self_time"] < outer.duration_s - inner.duration_s + 0.001
    schema = sink.one("hub.startup.phase schema")
    assert sink.one("import slow_in_phase").parent_span_id == schema.span_id
    assert sink.one("CREATE memories").parent_span_id == schema.span_id
    if sys.version_info[:2] == (3, 11):
        assert outer.attributes["hub.import.used_before_interactive"] is False
    assert not [span.name for span in sink.spans if span.name.startswith("import hubscope.instrumentation.lib")]
    task = sink.one("task recall")
    assert task.parent_span_id == b""
    assert task.attributes["hub.task.first_action"] is True
    query = sink.one("SELECT memories")
    assert query.parent_span_id == task.span_id
    assert query.attributes["db.query.text"] == "SELECT text FROM memories WHERE text <> ? AND id < ?"
    assert [name for name, _ in sink.events] == ["hub.first_render", "hub.interactive"]
    assert {"hub.startup.duration", "hub.startup.memory", "hub.import.duration", "process.memory.usage"} <= set(
        sink.metrics
    )
    assert sink.metrics["hub.startup.duration"][0].WhichOneof("data") == "exponential_histogram"


def test_what_the_launcher_does_is_no_part_of_the_start(exporting_to, sink, tmp_path):
    """A second in `opentelemetry-instrument` before it becomes the application is before the start; a second of its
    set-up in the application is the measuring's, and neither is the interpreter's."""
    (tmp_path / "gevent").mkdir()
    (tmp_path / "gevent" / "__init__.py").touch()
    (tmp_path / "gevent" / "monkey.py").write_text("import time\ndef patch_all(): time.sleep(1)\n")
    launcher = "import time; time.sleep(1)\nfrom opentelemetry.instrumentation.auto_instrumentation import run; run()"
    set_up = {"OTEL_PYTHON_AUTO_INSTRUMENTATION_EXPERIMENTAL_GEVENT_PATCH": "patch_all", "PYTHONPATH": str(tmp_path)}
    began_ns = time.time_ns()
    subprocess.run(
        [sys.executable, "-c", launcher, sys.executable, "-c", "pass"],
        env=exporting_to(sink.endpoint, **set_up),
        cwd=tmp_path,
        timeout=60,
        check=True,
    )
    root, interpreter = sink.one("hub.startup"), sink.one("hub.startup.phase interpreter")
    measuring = sink.one("hub.startup.phase instrumentation")
    assert root.start_ns == interpreter.start_ns > began_ns + 1_000_000_000
    assert interpreter.end_ns == measuring.start_ns
    assert measuring.duration_s >= 1 > interpreter.duration_s


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("pass", "exit"),
        (
            "from opentelemetry import trace\n"
            "trace.get_tracer('t').start_span('GET /', kind=trace.SpanKind.SERVER).end()",
            "first_request",
        ),
        ("from hubscope import instrumentation as hub\nwith hub.task('x'): pass", "first_request"),
        ("import socket; s = socket.create_server(('127.0.0.1', 0))", "listening"),
        (
            "import socket; s = socket.create_server(('127.0.0.1', 0))\n"
            "from hubscope import instrumentation as hub; hub.interactive()",
            "interactive",
        ),
    ],
)
def test_how_a_start_ends(run_app, exporting_to, sink, text, end):
    """What is said wins over what is seen; a program that only ran to its end has no start-up duration."""
    finished = run_app(text, exporting_to(sink.endpoint))
    assert (finished.code, finished.err) == (0, "")
    assert sink.one("hub.startup").attributes["hub.startup.end"] == end
    assert ("hub.startup.duration" in sink.metrics) is (end != "exit")


def test_children_are_left_alone(run_app, exporting_to, environ, sink):
    """A Python process that the application starts is not measured, unless HUBSCOPE_INSTRUMENT_CHILDREN says so."""
    child = (
        "import subprocess, sys\n"
        "print(subprocess.run([sys.executable, '-c', 'import sys; print(\"opentelemetry.trace\" in sys.modules)'],"
        " capture_output=True, text=True).stdout, end='')"
    )
    launched = prepare_environment(environ, endpoint=sink.endpoint, command=["app"])
    assert run_app(child, exporting_to(sink.endpoint)).out == "False\n"
    assert run_app(child, launched, wrapper=()).out == "False\n"
    asked = {"HUBSCOPE_INSTRUMENT_CHILDREN": "true"}
    assert run_app(child, {**launched, **asked}, wrapper=()).out == "True\n"
    assert run_app(child, exporting_to(sink.endpoint, **asked)).out == "True\n"


@pytest.mark.parametrize("variable", ["HUBSCOPE_DISABLED", "OTEL_SDK_DISABLED"])
def test_disabled_costs_nothing(run_app, environ, sink, variable):
    """Switched off, the SDK is not even imported and nothing is sent."""
    launched = {**prepare_environment(environ, endpoint=sink.endpoint), variable: "true"}
    text = "import sys; print([m for m in sys.modules if m.startswith(('opentelemetry', 'psutil', 'grpc'))])"
    assert run_app(text, launched, wrapper=()).out == "[]\n"
    text = "import sys; print([m for m in sys.modules if m.startswith(('opentelemetry.sdk', 'psutil', 'grpc'))])"
    assert run_app(text, {**launched, "PYTHONPATH": ""}).out == "[]\n"
    assert sink.spans == []


def test_one_failing_instrumentor_does_not_stop_the_rest(run_app, exporting_to, sink, tmp_path):
    """An installed instrumentation that raises is named on stderr; those after it are loaded, the program runs."""
    info = tmp_path / "broken-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[opentelemetry_instrumentor]\nbroken = broken_inst:Broken\n")
    (tmp_path / "broken_inst.py").write_text(
        "class Broken:\n    def instrument(self, **kwargs):\n        raise ZeroDivisionError('inside')\n"
    )
    finished = run_app(
        "import sqlite3; sqlite3.connect(':memory:').execute('select 1').fetchall(); print('ran')",
        exporting_to(sink.endpoint, PYTHONPATH=str(tmp_path)),
    )
    assert finished.out == "ran\n"
    assert "instrumentation broken failed" in finished.err
    assert "Traceback" not in finished.err
    assert len(sink.named("SELECT")) == 1  # one, though the contrib sqlite3 instrumentation is installed too


def test_a_wrong_setting_is_said_and_the_program_runs(run_app, exporting_to, sink):
    """A protocol nobody knows: one line that names it, no traceback, and the program runs unmeasured."""
    finished = run_app("print('ran')", exporting_to(sink.endpoint, "carrier-pigeon"))
    assert (finished.code, finished.out) == (0, "ran\n")
    assert "carrier-pigeon" in finished.err
    assert "Traceback" not in finished.err


def test_warnings_are_the_application_s(run_app, exporting_to, environ, sink):
    """Setting up leaves the program's warning filters as they were."""
    text = "import warnings; print([f[:3] for f in warnings.filters])"
    plain = run_app(text, environ, wrapper=()).out
    assert run_app(text, prepare_environment(environ, endpoint=sink.endpoint), wrapper=()).out == plain


def test_a_configuration_file_keeps_ours(run_app, exporting_to, sink, tmp_path):
    """Under OTEL_CONFIG_FILE the providers are those of the file; the start, queries and the bounded exit are added."""
    package = tmp_path / "path" / "opentelemetry" / "configuration"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "def load_config_file(path):\n    return open(path).read()\n"
        "def configure_sdk(text):\n"
        "    from opentelemetry import trace\n"
        "    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter\n"
        "    from opentelemetry.sdk.resources import Resource\n"
        "    from opentelemetry.sdk.trace import TracerProvider\n"
        "    from opentelemetry.sdk.trace.export import BatchSpanProcessor\n"
        "    provider = TracerProvider(resource=Resource({'service.name': text}))\n"
        "    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))\n"
        "    trace.set_tracer_provider(provider)\n"
    )
    (tmp_path / "otel.yaml").write_text("from-the-file")
    environ = exporting_to(
        sink.endpoint, OTEL_CONFIG_FILE=str(tmp_path / "otel.yaml"), PYTHONPATH=str(tmp_path / "path")
    )
    finished = run_app("import sqlite3; sqlite3.connect(':memory:').execute('select 1').fetchall()", environ)
    assert (finished.code, finished.err) == (0, "")
    assert sink.one("SELECT").resource["service.name"] == "from-the-file"
    assert sink.one("hub.startup").resource.keys() >= {"service.instance.id"}


def test_a_configuration_file_without_its_package_is_said(run_app, exporting_to, sink, tmp_path):
    """The package that reads the file is not installed: one line names it, and the program runs unmeasured."""
    (tmp_path / "otel.yaml").write_text("")
    finished = run_app("print('ran')", exporting_to(sink.endpoint, OTEL_CONFIG_FILE=str(tmp_path / "otel.yaml")))
    assert finished.out == "ran\n"
    assert "pip install opentelemetry-configuration" in finished.err
    assert "Traceback" not in finished.err


def test_kpis_in_the_application_itself(run_app, exporting_to, sink):
    """With HUBSCOPE_SDK_PROCESSORS=true the KPIs leave with the application's own metrics."""
    text = "from hubscope import instrumentation as hub\nhub.interactive()\nwith hub.task('x'): pass\n"
    finished = run_app(text, exporting_to(sink.endpoint, HUBSCOPE_SDK_PROCESSORS="true"))
    assert (finished.code, finished.err) == (0, "")
    assert sink.points("hub.kpi.value")


def test_the_kind_of_a_start_can_be_said(run_app, exporting_to, sink):
    """HUBSCOPE_STARTUP_TYPE wins over what the page faults suggest."""
    run_app("pass", exporting_to(sink.endpoint, HUBSCOPE_STARTUP_TYPE="cold"))
    run_app("pass", exporting_to(sink.endpoint, HUBSCOPE_STARTUP_TYPE="warm"))
    assert [root.attributes["hub.startup.type"] for root in sink.named("hub.startup")] == ["cold", "warm"]


def test_a_provider_the_application_sets_later_is_joined(run_app, exporting_to, sink):
    """Its exporter gets our spans as well as its own, ours gets its spans too, each once, under one service name."""
    finished = run_app(
        "import json, sqlite3\n"
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.resources import Resource\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import SimpleSpanProcessor\n"
        "from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter\n"
        "kept = InMemorySpanExporter()\n"
        "provider = TracerProvider(resource=Resource({'service.name': 'said'}))\n"
        "trace.set_tracer_provider(provider)\n"
        "provider.add_span_processor(SimpleSpanProcessor(kept))\n"
        "with provider.get_tracer('own').start_as_current_span('own'):\n"
        "    sqlite3.connect(':memory:').execute('select 1').fetchall()\n"
        "with trace.get_tracer('api').start_as_current_span('api'): pass\n"
        "print(json.dumps([s.name for s in kept.get_finished_spans()]))\n",
        exporting_to(sink.endpoint),
    )
    assert finished.err == ""
    assert finished.json() == ["SELECT", "own", "api"]
    assert sink.one("SELECT").parent_span_id == sink.one("own").span_id
    assert {sink.one(name).resource["service.name"] for name in ("SELECT", "own", "api", "hub.startup")} == {"said"}
    assert len({span.resource["service.instance.id"] for span in sink.spans}) == 1


def test_configure_in_code_names_what_was_measured(run_app, exporting_to, environ, sink):
    """`hub.configure` switches on, may be called twice, gives way to OTEL_SERVICE_NAME, and names an earlier start."""
    text = (
        "from hubscope import instrumentation as hub\n"
        "hub.configure(service_name='reference-hub', service_version='2')\n"
        "hub.configure(service_name='reference-hub', service_version='2')\n"
        "hub.interactive()\n"
    )
    launched = prepare_environment(environ, endpoint=sink.endpoint, command=["python", "app.py"])
    assert run_app(text, launched, wrapper=()).err == ""
    [root] = sink.named("hub.startup")
    assert (root.resource["service.name"], root.resource["service.version"]) == ("reference-hub", "2")
    plain = {k: v for k, v in exporting_to(sink.endpoint).items() if k != "OTEL_PYTHON_DISTRO"}
    assert run_app(text, plain, wrapper=()).err == ""
    assert sink.named("hub.startup")[1].resource["service.name"] == "app"


def test_configure_joins_a_provider_that_was_there_first(run_app, exporting_to, sink):
    """The application's own provider also sends to our collector after `hub.configure`."""
    finished = run_app(
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "trace.set_tracer_provider(TracerProvider())\n"
        "from hubscope import instrumentation as hub\n"
        "hub.configure()\n"
        "with trace.get_tracer('own').start_as_current_span('own'):\n"
        "    with hub.phase('x'): pass\n",
        exporting_to(sink.endpoint),
        wrapper=(),
    )
    assert finished.err == ""
    assert sink.one("hub.startup.phase x").parent_span_id == sink.one("own").span_id
    assert "hub.import.duration" in sink.metrics


def test_a_forked_child_is_a_process_of_its_own(run_app, exporting_to, sink):
    """A child sends what it measures under an instance id of its own, and no second start."""
    finished = run_app(
        "import os\n"
        "from hubscope import instrumentation as hub\n"
        "hub.interactive()\n"
        "pid = os.fork()\n"
        "with hub.task('child' if pid == 0 else 'parent'): pass\n"
        "if pid == 0:\n"
        "    hub.flush(); os._exit(0)\n"
        "os.waitpid(pid, 0)\n",
        exporting_to(sink.endpoint),
    )
    assert finished.code == 0, finished.err
    child, parent = sink.one("task child"), sink.one("task parent")
    assert child.resource["service.instance.id"] != parent.resource["service.instance.id"]
    assert len(sink.named("hub.startup")) == 1


def test_the_environment_s_own_sitecustomize_still_runs(run_app, environ, sink, tmp_path):
    """Ours steps aside for the one that would have been found without us, and leaves sys.path and PYTHONPATH clean."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import builtins; builtins.own_site = True\n")
    launched = prepare_environment({**environ, "PYTHONPATH": str(folder)}, endpoint=sink.endpoint)
    text = "import builtins, os, sys; print(builtins.own_site, os.environ['PYTHONPATH'], 'site_dir' in str(sys.path))"
    finished = run_app(text, launched, wrapper=())
    assert finished.out == f"True {folder} False\n", finished.err


def test_a_command_that_is_not_python_just_runs(environ):
    """The environment does not get in the way of another program."""
    launched = prepare_environment(environ, endpoint="http://127.0.0.1:1", command=["sh"])
    done = subprocess.run(["sh", "-c", "echo ran"], env=launched, capture_output=True, text=True, timeout=10)
    assert (done.stdout, done.stderr) == ("ran\n", "")


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_datasette_unmodified(exporting_to, sink, tmp_path):
    """Its start with imports, one trace a request with queries and plugins, although SIGTERM ends it at once."""
    database = tmp_path / "places.db"
    with closing(sqlite3.connect(database)) as con, con:
        con.execute("create table places (id integer primary key, name text, latitude real, longitude real)")
        con.executemany("insert into places (name, latitude, longitude) values (?, 1, 2)", [("x",)] * 200)
    port = _free_port()
    datasette = str(Path(sys.executable).with_name("datasette"))
    process = subprocess.Popen(
        [INSTRUMENT, datasette, "serve", str(database), "--port", str(port)],
        env=exporting_to(sink.endpoint, OTEL_BSP_SCHEDULE_DELAY="200", OTEL_SERVICE_NAME="datasette"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        _get(f"http://127.0.0.1:{port}/places/places", deadline=time.monotonic() + 40)
        _get(f"http://127.0.0.1:{port}/places/places.json?_search=zanzibar", deadline=time.monotonic() + 10)
        _get(f"http://127.0.0.1:{port}/places/places/17", deadline=time.monotonic() + 10)
        sink.wait_for(lambda s: bool(s.named("plugin cluster_map extra_body_script")))
    finally:
        process.terminate()
        said = process.communicate(timeout=20)[0]
    assert "Traceback" not in said
    root = sink.one("hub.startup")
    assert root.attributes["hub.startup.end"] == "listening"
    imports = {span.name: span for span in sink.spans if span.name.startswith("import ")}
    assert imports["import datasette.cli"].parent_span_id == root.span_id
    assert imports["import uvicorn"].duration_s > imports["import uvicorn"].attributes["hub.import.self_time"]
    shapes = {span.attributes["db.query.summary"] for span in sink.spans if "db.query.summary" in span.attributes}
    assert len([shape for shape in shapes if shape.startswith("SELECT places #")]) >= 2
    called = {(p["hub.plugin.id"], p["hub.plugin.hook"]) for p in sink.points("hub.plugin.call.duration")}
    assert {("cluster_map", "extra_body_script"), ("pretty_json", "render_cell")} <= called
    # One trace a request: the root is the request, and everything else has a parent that is there as well.
    roots = {span.trace_id: span for span in sink.spans if not span.parent_span_id}
    requests = ["GET /places/places", "GET /places/places.json", "GET /places/places/{…}"]
    assert sorted(span.name for span in roots.values()) == [*requests, "hub.startup"]
    assert {span.kind for span in roots.values() if span.name in requests} == {2}
    known = {span.span_id for span in sink.spans}
    assert all(span.parent_span_id in known for span in sink.spans if span.parent_span_id)
    for name in requests:
        below = [span.name for span in sink.spans if span.trace_id == sink.one(name).trace_id]
        assert "SELECT places" in below
    [script] = sink.named("plugin cluster_map extra_body_script")[:1]
    assert roots[script.trace_id].name == "GET /places/places"
    assert script.attributes["hub.plugin.version"] == importlib.metadata.version("datasette-cluster-map")
    assert b"zanzibar" not in sink.raw
    installed = sink.metrics["hub.plugins.installed"][-1].gauge.data_points[0].as_int
    assert installed >= 3


def _get(url: str, deadline: float) -> bytes:
    waiting = threading.Event()
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                body: bytes = answer.read()
                return body
        except OSError:
            assert time.monotonic() < deadline, url
            waiting.wait(0.1)
