"""Workers of `multiprocessing` and `ProcessPoolExecutor`: real forks, ended as their pools end them."""

from __future__ import annotations

import sys
import time

import pytest
import requests

from hubscope.instrumentation.launch import prepare_environment
from hubscope.instrumentation.workers import forget_sums, reconnect

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")

PROGRAM = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from hubscope import instrumentation as hub

def work(number):
    with hub.task("work"):
        return number

def on_its_own(number):
    with hub.task("work"):
        hub.rating(1)

if __name__ == "__main__":
    forking = multiprocessing.get_context("fork")
    hub.interactive()
    with hub.task("parent"): pass
    if {flush}: hub.flush()
    {way}
"""
# 21 processes at once on two busy cores may take longer than the default.
PATIENT = {"HUBSCOPE_EXIT_TIMEOUT_MS": "20000"}
WAYS = {
    "pool, terminated": "with forking.Pool(3) as pool: print(sum(pool.map(work, range(21), chunksize=1)))",
    "pool, closed": (
        "pool = forking.Pool(3); print(sum(pool.map(work, range(21), chunksize=1))); pool.close(); pool.join()"
    ),
    "pool, closed and terminated": (
        "with forking.Pool(3) as pool: print(sum(pool.map(work, range(21), chunksize=1))); pool.close()"
    ),
    "executor": "with ProcessPoolExecutor(3, mp_context=forking) as pool: print(sum(pool.map(work, range(21))))",
    "processes": (
        "workers = [forking.Process(target=on_its_own, args=(n,)) for n in range(21)]; "
        "[w.start() for w in workers]; [w.join() for w in workers]; print(210)"
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("flush", [False, True])
def test_every_task_of_every_worker_arrives(run_app, exporting_to, sink, way, flush):
    """All 22 tasks arrive once, under the instance that did them, and no worker repeats what its parent counted."""
    environ = exporting_to(sink.endpoint, **PATIENT)
    finished = run_app(PROGRAM.format(way=WAYS[way], flush=flush), environ)
    assert (finished.code, finished.out, finished.err) == (0, "210\n", "")
    tasks = sink.named("task work")
    parent = sink.one("task parent")
    assert len(tasks) == 21
    instances = {task.resource["service.instance.id"] for task in tasks}
    assert parent.resource["service.instance.id"] not in instances
    assert len(sink.named("hub.startup")) == 1
    workers = sink.named("hub.startup.worker")
    assert {worker.resource["service.instance.id"] for worker in workers} == instances
    assert len(workers) == len(instances)
    assert {w.attributes["hub.startup.parent"] for w in workers} == {parent.resource["service.instance.id"]}
    counted: dict[tuple[str, str], int] = {}
    started = set()
    for resource, metric in zip(sink.metric_resources, sink.metric_messages, strict=True):
        instance = resource["service.instance.id"]
        for scope in metric.scope_metrics:
            for each in scope.metrics:
                if each.name == "hub.startup.duration":
                    started.add(instance)
                elif each.name == "hub.task.duration":
                    for point in each.exponential_histogram.data_points:
                        name = next(a.value.string_value for a in point.attributes if a.key == "hub.task.name")
                        counted[instance, name] = point.count
    assert started == {parent.resource["service.instance.id"]}
    assert sum(count for (_, name), count in counted.items() if name == "work") == 21
    assert [count for (_, name), count in counted.items() if name == "parent"] == [1]


@pytest.mark.parametrize("way", ["pool, terminated", "pool, closed", "executor"])
def test_workers_leave_in_bounded_time_without_a_collector(run_app, exporting_to, closed_port, way):
    """With nothing listening a pool of three ends as quickly as one process does."""
    program = PROGRAM.format(way=f"began = time.time()\n    {WAYS[way]}\n    print(began)", flush=False)
    finished = run_app("import time\n" + program, exporting_to(f"http://127.0.0.1:{closed_port}"))
    assert finished.code == 0, finished.err
    answer, began = finished.out.split()
    assert answer == "210"
    # The workers' 2.5 s and then the parent's, on a busy machine; the stock exporters take 24 to 28 s for each.
    assert time.time() - float(began) < 20
    assert "It is kept in" in finished.err
    assert "lost" not in finished.err
    assert "Traceback" not in finished.err


def test_a_busy_pool_is_terminated_at_once(run_app, exporting_to, sink):
    """`terminate` does not wait for work in hand: the tasks would sleep for ten minutes."""
    finished = run_app(
        "import multiprocessing, time\n"
        "forking = multiprocessing.get_context('fork')\n"
        "with forking.Pool(2) as pool: result = pool.map_async(time.sleep, [600, 600])\n"
        "print(result.ready())\n",
        exporting_to(sink.endpoint, **PATIENT),
        timeout_s=30,
    )
    assert (finished.code, finished.out, finished.err) == (0, "False\n", "")


def test_a_pool_of_threads_is_none_of_ours(run_app, exporting_to, sink):
    """`ThreadPool` shares the class and has no processes: it is terminated as ever, and its tasks are the parent's."""
    finished = run_app(
        "from multiprocessing.pool import ThreadPool\n"
        "from hubscope import instrumentation as hub\n"
        "def work(number):\n"
        "    with hub.task('work'): return number\n"
        "with ThreadPool(2) as pool: print(sum(pool.map(work, range(21))))\n",
        exporting_to(sink.endpoint, **PATIENT),
    )
    assert (finished.code, finished.out, finished.err) == (0, "210\n", "")
    assert len(sink.named("task work")) == 21


def test_a_child_that_is_told_to_stop_at_once_dies_of_it(run_app, exporting_to, sink):
    """SIGTERM that comes before a child runs any Python ends it, and the parent keeps its own handler."""
    # With the parent's handler inherited 21 of 30 did not end.
    finished = run_app(
        "import multiprocessing, signal, threading\n"
        "forking = multiprocessing.get_context('fork')\n"
        "ours = signal.getsignal(signal.SIGTERM)\n"
        "mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])\n"  # what started us may have blocked some
        "codes = []\n"
        "for _ in range(20):\n"
        "    child = forking.Process(target=threading.Event().wait, args=(600,), daemon=True)\n"
        "    child.start(); child.terminate(); child.join(10)\n"
        "    codes.append(child.exitcode); child.kill()\n"
        "is_as_before = signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask\n"
        "print(set(codes), callable(ours), signal.getsignal(signal.SIGTERM) is ours, is_as_before)\n",
        exporting_to(sink.endpoint, **PATIENT),
        timeout_s=300,
    )
    assert (finished.code, finished.out, finished.err) == (0, "{-15} True True True\n", "")


def test_a_worker_s_own_handler_and_a_plain_fork_are_left_alone(run_app, exporting_to, sink):
    """A worker that handles SIGTERM itself is not ended by ours, and a child of `os.fork` dies of it at once."""
    finished = run_app(
        "import multiprocessing, os, signal, sys, time\n"
        "from hubscope import instrumentation as hub\n"
        "forking = multiprocessing.get_context('fork')\n"
        "def work(ready):\n"
        "    signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "    with hub.task('own handler'): pass\n"
        "    ready.set()\n"
        "    while True: signal.pause()\n"
        "ready = forking.Event()\n"
        "worker = forking.Process(target=work, args=(ready,))\n"
        "worker.start(); ready.wait(20); worker.terminate(); worker.join()\n"
        "reading, writing = os.pipe()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    with hub.task('plain fork'): pass\n"
        "    os.write(writing, b'x')\n"
        "    while True: signal.pause()\n"
        "os.read(reading, 1); os.kill(pid, signal.SIGTERM)\n"
        "print(worker.exitcode, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n",
        exporting_to(sink.endpoint, **PATIENT),
    )
    # From Python 3.12 on it warns on stderr of an `os.fork` beside the exporters' threads.
    assert (finished.code, finished.out) == (0, "5 -15\n"), finished.err
    assert sink.one("task own handler")
    assert not sink.named("task plain fork")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_spawned_worker_is_not_measured_unless_asked(run_app, exporting_to, environ, sink, method):
    """It has its own interpreter: like any child Python it is measured by HUBSCOPE_INSTRUMENT_CHILDREN only."""
    way = f"forking = multiprocessing.get_context('{method}')\n    {WAYS['executor']}"
    program = PROGRAM.format(way=way, flush=False)
    finished = run_app(program, exporting_to(sink.endpoint, **PATIENT))
    assert (finished.code, finished.out, finished.err) == (0, "210\n", "")
    launched = prepare_environment(environ, endpoint=sink.endpoint, command=["app"])
    finished = run_app(program, {**launched, **PATIENT}, wrapper=())
    assert (finished.code, finished.out, finished.err) == (0, "210\n", "")
    assert len(sink.named("task parent")) == 2
    assert not sink.named("task work")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("way", ["pool, terminated", "executor"])
def test_a_spawned_worker_that_is_asked_for_sends_all(run_app, exporting_to, environ, sink, method, way):
    """With HUBSCOPE_INSTRUMENT_CHILDREN the workers of other start methods are measured, and no task is lost."""
    program = PROGRAM.format(way=f"forking = multiprocessing.get_context('{method}')\n    {WAYS[way]}", flush=False)
    launched = prepare_environment(environ, endpoint=sink.endpoint, command=["app"])
    asked = {"HUBSCOPE_INSTRUMENT_CHILDREN": "true"}
    finished = run_app(program, {**launched, **asked, **PATIENT}, wrapper=())
    assert (finished.code, finished.out, finished.err) == (0, "210\n", "")
    assert len(sink.named("task work")) == 21
    assert len(sink.named("task parent")) == 1
    start, workers = sink.one("hub.startup"), sink.named("hub.startup.worker")
    parents = {start.resource["service.instance.id"], *(worker.resource["service.instance.id"] for worker in workers)}
    assert len(workers) >= 1
    assert all(worker.attributes["hub.startup.parent"] in parents for worker in workers)
    assert len(sink.named("hub.startup.phase interpreter")) == 1  # of the application alone


def test_a_program_that_replaces_itself_is_no_worker(run_app, environ, sink):
    """What a launcher such as `poetry run` turns itself into has the same process id: the application starts there."""
    text = "import os, sys\nif 'again' not in sys.argv: os.execv(sys.executable, [sys.executable, __file__, 'again'])"
    launched = prepare_environment(environ, endpoint=sink.endpoint, command=["app"])
    finished = run_app(text, {**launched, "HUBSCOPE_INSTRUMENT_CHILDREN": "true"}, wrapper=())
    assert (finished.code, finished.err) == (0, "")
    assert sink.one("hub.startup").attributes["hub.startup.end"] == "exit"
    assert not sink.named("hub.startup.worker")


def test_a_program_without_workers_pays_nothing(run_app, exporting_to, environ, sink):
    """`multiprocessing` is not imported on behalf of a program that does not import it."""
    text = "import sys; print([m for m in sys.modules if m.partition('.')[0] == 'multiprocessing'])"
    assert run_app(text, exporting_to(sink.endpoint, **PATIENT)).out == run_app(text, environ, wrapper=()).out == "[]\n"


def _sdk_provider():
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import (
        ConsoleMetricExporter,
        InMemoryMetricReader,
        PeriodicExportingMetricReader,
    )

    memory = InMemoryMetricReader()
    provider = MeterProvider(
        [memory, PeriodicExportingMetricReader(ConsoleMetricExporter(), float("inf"))], shutdown_on_exit=False
    )
    counter = provider.get_meter("test").create_counter("counted")
    counter.add(3)
    return provider, memory, counter


def _count(memory) -> int:
    [resource] = memory.get_metrics_data().resource_metrics
    return resource.scope_metrics[0].metrics[0].data.data_points[0].value


def test_the_names_of_the_sdk_that_are_relied_on():
    """The installed SDK keeps its sums and locks under the names that `forget_sums` knows: counting begins at zero."""
    provider, memory, counter = _sdk_provider()
    consumer = provider._measurement_consumer
    [exporting] = [reader for reader in consumer._reader_storages if reader is not memory]

    def locks():
        return [consumer._lock, exporting._export_lock, *(s._lock for s in consumer._reader_storages.values())]

    before = locks()
    assert _count(memory) == 3
    assert forget_sums(provider)
    counter.add(1)
    assert _count(memory) == 1
    assert not {id(lock) for lock in before} & {id(lock) for lock in locks()}


@pytest.mark.parametrize("owner", ["provider", "consumer", "storage"])
def test_an_sdk_with_other_names_keeps_its_own_behaviour(owner):
    """One name that is not there, and nothing at all is touched."""
    provider, memory, counter = _sdk_provider()
    consumer = provider._measurement_consumer
    # The last of several: what comes before it must not have been changed by then.
    reader, storage = list(consumer._reader_storages.items())[-1]
    name, holder = {
        "provider": ("_measurement_consumer", provider),
        "consumer": ("_reader_storages", consumer),
        "storage": ("_instrument_view_instrument_matches", storage),
    }[owner]
    kept = holder.__dict__.pop(name)
    before = {id(part): dict(vars(part)) for part in (provider, consumer, storage, reader, memory)}
    assert not forget_sums(provider)
    assert before == {id(part): vars(part) for part in (provider, consumer, storage, reader, memory)}
    setattr(holder, name, kept)
    counter.add(1)
    assert _count(memory) == 4


def test_the_names_of_the_exporters_that_are_relied_on():
    """The installed OTLP/HTTP exporters get new adapters with the same options, gRPC ones can be connected anew."""
    from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc
    from opentelemetry.exporter.otlp.proto.http import _log_exporter, metric_exporter, trace_exporter
    from requests.adapters import HTTPAdapter

    class Own(HTTPAdapter):
        pass

    for kind in (trace_exporter.OTLPSpanExporter, metric_exporter.OTLPMetricExporter, _log_exporter.OTLPLogExporter):
        session = requests.Session()
        session.mount("http://", HTTPAdapter(pool_maxsize=3))
        session.mount("https://own", own := Own())
        before = dict(session.adapters)
        reconnect(kind(session=session))
        after = session.adapters
        assert after["https://own"] is own
        assert all(after[prefix] is not before[prefix] for prefix in ("http://", "https://"))
        assert after["http://"]._pool_maxsize == 3
    exporter = grpc.OTLPSpanExporter(endpoint="http://127.0.0.1:9")
    channel, client = exporter._channel, exporter._client
    exporter._initialize_channel_and_stub()
    assert exporter._channel is not channel
    assert exporter._client is not client
    channel.close()
    exporter.shutdown()
