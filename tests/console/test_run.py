"""`hubscope run` with a real collector: started, used, waited for, and gone afterwards."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import psutil
import pytest
from click.testing import Result
from deltalake import DeltaTable

from hubscope.analytics.connect import connect
from hubscope.lake_schema import LAKE_VERSION_KEY, SCHEMAS, TRACES

Hubscope = Callable[..., Result]
PROGRAM = """
import sqlite3
connection = sqlite3.connect(":memory:")
connection.execute("CREATE TABLE memories (id INTEGER, text TEXT)")
for i in range(3):
    connection.execute("INSERT INTO memories VALUES (?, ?)", (i, "x"))
raise SystemExit(7)
"""


def free_ports(count: int) -> list[int]:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


@pytest.fixture
def addresses() -> list[str]:
    """--grpc, --http and --telemetry on free ports."""
    grpc, http, telemetry = (f"127.0.0.1:{port}" for port in free_ports(3))
    return ["--grpc", grpc, "--http", http, "--telemetry", telemetry]


@pytest.fixture
def lake_dir(tmp_path: Path) -> Iterator[Path]:
    """A lake to be; a collector that still runs for it at the end is ended."""
    yield tmp_path / "lake"
    record = tmp_path / "lake" / ".state" / "collector.json"
    if record.exists():
        pid = json.loads(record.read_text())["pid"]
        if psutil.pid_exists(pid):
            psutil.Process(pid).terminate()


def run(*arguments: str, timeout_s: float = 90, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "HUBSCOPE_"))}
    return subprocess.run(
        [sys.executable, "-m", "hubscope.console", "run", *arguments],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def until(condition: Callable[[], bool], deadline_s: float = 30) -> bool:
    deadline = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_what_a_program_did_is_queryable_when_it_has_ended(
    lake_dir: Path, addresses: list[str], hubscope: Hubscope
) -> None:
    """A collector is started, says where it writes, has all of the program's queries in the lake, and stops."""
    done = run(
        "--lake", str(lake_dir), *addresses, "--service", "probe", "--version", "9", "--", sys.executable, "-c", PROGRAM
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout == ""
    assert f"recording into {lake_dir}" in done.stderr
    assert f"hubscope report --lake {lake_dir}" in done.stderr
    query = "SELECT count(*) AS n FROM otel_traces WHERE ServiceName = 'probe' AND DbCollection = 'memories'"
    rows = json.loads(hubscope("sql", query, "--lake", lake_dir, "--format", "json").stdout)
    assert rows[0]["n"] >= 3
    services = json.loads(hubscope("status", "--lake", lake_dir, "--format", "json").stdout)["services"]
    assert services[0]["versions"] == ["9"]
    assert list((lake_dir / ".state" / "leases").iterdir()) == []
    record = lake_dir / ".state" / "collector.json"
    assert until(lambda: not record.exists() or not psutil.pid_exists(json.loads(record.read_text())["pid"]))


def test_addresses_that_the_running_collector_has_not_are_said(lake_dir: Path, addresses: list[str]) -> None:
    """Flags that cannot be honoured are named with what is used instead; ones nobody gave, or that agree, are not."""
    inner = ["--lake", str(lake_dir), "--", sys.executable, "-c", "pass"]
    other = [f"127.0.0.1:{port}" for port in free_ports(2)]
    code = (
        "import subprocess, sys\n"
        "def run(*flags):\n"
        "    command = [sys.executable, '-m', 'hubscope.console', 'run', *flags, *sys.argv[1:]]\n"
        "    done = subprocess.run(command, capture_output=True, text=True, env=clean)\n"
        "    print(done.returncode, done.stderr, sep='\\n', end='===')\n"
        "import os\n"
        "clean = {k: v for k, v in os.environ.items() if not k.startswith(('OTEL_', 'PYTHONPATH'))}\n"
        f"run(); run('--grpc', {addresses[1]!r}); run('--grpc', {other[0]!r}, '--http', {other[1]!r})\n"
    )
    done = run("--lake", str(lake_dir), *addresses, "--", sys.executable, "-c", code, *inner)
    quiet, agreeing, told, _ = done.stdout.split("===")
    for said in (quiet, agreeing, told):
        assert said.startswith("0\n")
        assert f"recording into {lake_dir} by the collector on {addresses[3]}" in said
    assert "not used" not in quiet + agreeing
    assert f"not used: --grpc {other[0]} (it has {addresses[1]}), --http {other[1]} (it has {addresses[3]})" in told


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
@pytest.mark.parametrize("value", ["nonsense", "ftp://host:21", "http://", "host:port"])
def test_an_endpoint_that_is_none_starts_nothing(name: str, value: str, lake_dir: Path) -> None:
    """What would be lost at the program's end is said before its start, with the variable, and exit code 2."""
    done = run("--lake", str(lake_dir), "--", sys.executable, "-c", "print('ran')", **{name: value})
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{name}: got {value!r}" in done.stderr
    assert "give a URL such as http://localhost:4318" in done.stderr


def services_in(lake: Path) -> set[str]:
    return set(DeltaTable(str(lake / TRACES)).to_pyarrow_table(columns=["ServiceName"])["ServiceName"].to_pylist())


@pytest.fixture
def other_lake(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Starts `hubscope collect` for another lake, at these addresses, and ends it."""
    with ExitStack() as stack:

        def start(lake: Path, addresses: list[str]) -> None:
            command = [sys.executable, "-m", "hubscope.console", "collect", "--lake", str(lake), *addresses]
            process = stack.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            stack.callback(process.terminate)
            assert until(lambda: (lake / ".state" / "collector.json").exists())

        yield start


def test_runs_in_a_row_each_have_their_lake(tmp_path: Path, addresses: list[str]) -> None:
    """Six runs with six lakes at the same ports, while each collector is still leaving: every lake has its own run."""
    for number in range(6):
        program = [sys.executable, "-c", PROGRAM]
        done = run("--lake", str(tmp_path / f"l{number}"), "--service", f"s{number}", *addresses, "--", *program)
        assert done.returncode == 7, done.stderr
        assert f"by the collector on {addresses[3]} " in done.stderr  # its port was named, so it was waited for
        assert "lost" not in done.stderr
    assert [services_in(tmp_path / f"l{number}") for number in range(6)] == [{f"s{number}"} for number in range(6)]


def test_a_collector_that_another_lake_needs_is_left_alone(tmp_path: Path, addresses: list[str]) -> None:
    """A run within a run, with a lake of its own: the inner collector takes free ports at once, and says so."""
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    clean = "{k: v for k, v in os.environ.items() if not k.startswith(('OTEL_', 'PYTHONPATH'))}"
    code = f"import os, subprocess, sys\n{PROGRAM.replace('raise SystemExit(7)', '')}\nsys.exit(subprocess.run("
    command = [sys.executable, "-m", "hubscope.console", "run", "--lake", str(inner), "--service", "in", *addresses]
    code += f"{[*command, '--', sys.executable, '-c', PROGRAM]!r}, env={clean}).returncode)"
    done = run("--lake", str(outer), "--service", "out", *addresses, "--", sys.executable, "-c", code)
    assert done.returncode == 7, done.stderr
    assert f"not on {addresses[1]}: the collector of {outer} has it" in done.stderr
    assert f"not on {addresses[3]}: the collector of {outer} has it" in done.stderr
    assert (services_in(inner), services_in(outer)) == ({"in"}, {"out"})


def test_runs_that_start_at_once_each_have_their_lake(tmp_path: Path, addresses: list[str]) -> None:
    """Two runs that want the same ports for two lakes at the same time: both are recorded, each in its own."""
    program = [sys.executable, "-c", PROGRAM]
    commands = [("--lake", str(tmp_path / name), "--service", name, *addresses, "--", *program) for name in "ab"]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda command: run(*command), commands))
    assert [one.returncode for one in done] == [7, 7], [one.stderr for one in done]
    assert [services_in(tmp_path / name) for name in "ab"] == [{"a"}, {"b"}]


def test_a_lake_whose_collector_is_leaving_gets_the_next_one(lake_dir: Path, addresses: list[str]) -> None:
    """A run that comes while its own lake's collector leaves waits for the next one: both runs are in the lake."""
    program = [sys.executable, "-c", PROGRAM]
    record = lake_dir / ".state" / "collector.json"
    for name in ("first", "second"):
        done = run("--lake", str(lake_dir), "--service", name, *addresses, "--", *program)
        assert done.returncode == 7, done.stderr
        assert name == "second" or until(lambda: not record.exists() or "leaving" in record.read_text())
    assert services_in(lake_dir) == {"first", "second"}


def test_a_lasting_collector_serves_only_who_named_no_other_lake(
    tmp_path: Path, addresses: list[str], other_lake: Callable[..., None]
) -> None:
    """`hubscope collect` at the ports takes what a run without --lake sends, said with its lake, and nothing else."""
    lasting, mine = tmp_path / "lasting", tmp_path / "mine"
    other_lake(lasting, addresses)
    program = [sys.executable, "-c", PROGRAM]
    named = run("--lake", str(mine), "--service", "named", *addresses, "--", *program)
    unnamed = run("--service", "unnamed", *addresses, "--", *program, XDG_DATA_HOME=str(tmp_path / "data"))
    assert (named.returncode, unnamed.returncode) == (7, 7)
    assert f"not on {addresses[1]}: the collector of {lasting} has it" in named.stderr
    assert f"recording into {lasting} by the collector on {addresses[3]} (no --lake was named)" in unnamed.stderr
    assert services_in(mine) == {"named"}
    assert until(lambda: (lasting / TRACES).exists() and services_in(lasting) == {"unnamed"})
    assert not (tmp_path / "data" / "hubscope" / "lake" / TRACES).exists()


def test_a_standard_number_that_is_none_is_one_line(lake_dir: Path, addresses: list[str]) -> None:
    """The SDK would log a traceback, or set nothing up at all: the default is used, and what was recorded is stored."""
    done = run(
        *("--lake", str(lake_dir), *addresses, "--", sys.executable, "-c", PROGRAM),
        OTEL_BSP_SCHEDULE_DELAY="soon",
        OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="-4",
    )
    assert done.returncode == 7
    assert "Traceback" not in done.stderr
    for name, value in (("OTEL_BSP_SCHEDULE_DELAY", "soon"), ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-4")):
        assert f"hubscope: {name}: expected a number of at least 0, got {value!r}; using its default" in done.stderr
    assert "see what was found" in done.stderr


def test_what_listens_is_used_and_said(lake_dir: Path, addresses: list[str]) -> None:
    """Something else on the port is sent to, with its name said; no collector is started."""
    host, _, port = addresses[1].rpartition(":")
    server = grpc.server(ThreadPoolExecutor(2))
    export = grpc.unary_unary_rpc_method_handler(lambda request, context: b"")
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "opentelemetry.proto.collector.trace.v1.TraceService", {"Export": export}
            ),
        )
    )
    server.add_insecure_port(f"{host}:{port}")
    server.start()
    try:
        code = "import os; print(os.environ['OTEL_EXPORTER_OTLP_ENDPOINT'], os.environ['OTEL_EXPORTER_OTLP_PROTOCOL'])"
        done = run(
            "--lake", str(lake_dir), *addresses, "--", sys.executable, "-c", code, HUBSCOPE_EXIT_TIMEOUT_MS="100"
        )
    finally:
        server.stop(None)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"http://{addresses[1]} grpc\n"
    assert f"already listens on {addresses[1]}" in done.stderr
    assert not lake_dir.exists()


@pytest.mark.parametrize("flag", [1, 3])
def test_what_listens_and_is_no_receiver_is_refused(flag: int, lake_dir: Path, addresses: list[str]) -> None:
    """A plain web server on either port is named with its address and the way out; the program is not run."""
    host, _, port = addresses[flag].rpartition(":")
    with ThreadingHTTPServer((host, int(port)), SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = run("--lake", str(lake_dir), *addresses, "--", sys.executable, "-c", "print('ran')")
        server.shutdown()
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"{addresses[flag]} is taken by" in done.stderr
    assert f"pid {os.getpid()}" in done.stderr
    assert "hubscope run --grpc" in done.stderr


def test_a_program_that_sends_nothing_has_no_report(lake_dir: Path, addresses: list[str]) -> None:
    """Where nothing was stored, it says that and does not point to a report."""
    done = run("--lake", str(lake_dir), *addresses, "--", "/bin/true")
    assert done.returncode == 0, done.stderr
    assert "nothing of this run was stored" in done.stderr
    assert "or it left by os.exec*" in done.stderr
    assert "hubscope report" not in done.stderr


def test_what_a_program_left_at_os_exit_is_in_its_runs_lake(lake_dir: Path, addresses: list[str]) -> None:
    """Spans that wait on disk when it leaves without Python's exit are sent before the collector ends."""
    program = "import os, sqlite3; sqlite3.connect(':memory:').execute('SELECT 1'); os._exit(3)"
    done = run("--lake", str(lake_dir), *addresses, "--", sys.executable, "-c", program)
    assert done.returncode == 3, done.stderr
    found = connect(lake_dir).execute("SELECT count(*) FROM otel_traces WHERE DbSystem = 'sqlite'").fetchone()
    assert found == (1,)


def test_a_program_that_a_signal_ended_before_it_sent_is_told_so(lake_dir: Path, addresses: list[str]) -> None:
    """What is lost, and the remedy; not that there was nothing to send."""
    program = "import os, sqlite3; sqlite3.connect(':memory:').execute('SELECT 1'); os.kill(os.getpid(), 9)"
    done = run("--lake", str(lake_dir), *addresses, "--", sys.executable, "-c", program)
    assert "SIGKILL ended the program before it could send" in done.stderr
    assert "hub.flush()" in done.stderr


def test_a_lake_of_a_newer_version_starts_nothing(lake_dir: Path, addresses: list[str], hubscope: Hubscope) -> None:
    """run, collect and notebook refuse it with one message and exit code 4; no program and no collector was started."""
    DeltaTable.create(
        str(lake_dir / TRACES),
        SCHEMAS[TRACES],
        partition_by=["Date"],
        configuration={LAKE_VERSION_KEY: "99"},
        raise_if_key_not_exists=False,
    )
    done = run("--lake", str(lake_dir), *addresses, "--", sys.executable, "-c", "print('ran')")
    refused = [
        hubscope("collect", "--lake", lake_dir, *addresses),
        hubscope("notebook", lake_dir.parent / "notes", "--lake", lake_dir),
    ]
    assert (done.returncode, *(result.exit_code for result in refused)) == (4, 4, 4)
    for stderr in (done.stderr, *(result.stderr for result in refused)):
        assert f"the lake at {lake_dir} is of version 99" in stderr
        assert "pip install --upgrade 'hubscope[all]'" in stderr
    assert done.stdout == ""
    assert not (lake_dir / ".state").exists()
    assert not (lake_dir.parent / "notes").exists()


def test_without_the_collector_extra_it_says_what_to_install(lake_dir: Path, addresses: list[str]) -> None:
    """Where a collector would have to be started and cannot, nothing is run, and the extra is named."""
    code = (
        "import sys\nsys.modules['ptars'] = None\n"
        "from hubscope.console.main import main\nmain(sys.argv[1:], prog_name='hubscope')"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "HUBSCOPE_"))}
    command = ["run", "--lake", str(lake_dir), *addresses, "--", sys.executable, "-c", "print('ran')"]
    done = subprocess.run([sys.executable, "-c", code, *command], env=clean, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "pip install 'hubscope[collector]'" in done.stderr
    assert done.stdout == ""


def test_a_collector_that_does_not_come_up_is_explained(lake_dir: Path, addresses: list[str]) -> None:
    """A lake that cannot be written ends the start with the reason, exit code 4 or 2, and no traceback of ours."""
    lake_dir.write_text("a file where the lake should be")
    done = run("--lake", str(lake_dir), *addresses, "--", sys.executable, "-c", "print('ran')")
    assert done.returncode in (2, 4)
    assert str(lake_dir) in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_every_worker_of_a_pool_is_in_the_lake(addresses: list[str], lake_dir: Path, tmp_path: Path) -> None:
    """A program whose work is done by forked workers, over gRPC as `run` chooses it: every task is in the lake."""
    program = tmp_path / "pool.py"
    program.write_text(
        "import multiprocessing\n"
        "from hubscope import instrumentation as hub\n"
        "def work(number):\n"
        "    with hub.task('work'): return number\n"
        "if __name__ == '__main__':\n"
        "    with hub.task('parent'): pass\n"
        "    hub.flush()\n"
        "    with multiprocessing.get_context('fork').Pool(3) as pool: print(sum(pool.map(work, range(21))))\n"
    )
    command = ["--lake", str(lake_dir), *addresses, "--", sys.executable, str(program)]
    finished = run(*command, HUBSCOPE_EXIT_TIMEOUT_MS="20000")
    assert (finished.returncode, finished.stdout) == (0, "210\n"), finished.stderr
    names = DeltaTable(str(lake_dir / TRACES)).to_pyarrow_table(columns=["SpanName"])["SpanName"].to_pylist()
    assert names.count("task work") == 21
    assert names.count("task parent") == names.count("hub.startup") == 1
