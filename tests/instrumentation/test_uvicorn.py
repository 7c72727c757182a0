"""Requests that uvicorn serves, and what happens in their threads."""

from __future__ import annotations

import asyncio
import functools

import pytest
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

from hubscope.instrumentation.libraries.uvicorn import measured_already

# Serves `app` in a thread, asks for each path, prints the statuses, and leaves.
SERVE = """
import asyncio, json, sqlite3, threading, urllib.error, urllib.request
import uvicorn

def answers(app, *paths, headers={}):
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    waiting = threading.Event()
    while not server.started and thread.is_alive():
        waiting.wait(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    statuses = []
    for path in paths:
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
            with urllib.request.urlopen(request, timeout=10) as answer:
                statuses.append(answer.status)
        except urllib.error.HTTPError as error:
            statuses.append(error.code)
    server.should_exit = True
    thread.join()
    return statuses

async def answer(send, status=200):
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b"answer"})
"""

APP = (
    SERVE
    + """
class Route:
    path = "/users/{user_id:int}"

def query(text):
    sqlite3.connect(":memory:").execute(text).fetchall()

async def app(scope, receive, send):
    path = scope["path"]
    if path == "/fails":
        raise RuntimeError("private words")
    if path.startswith("/users/"):
        scope["route"] = Route
    await asyncio.get_running_loop().run_in_executor(None, query, "select 1 as in_thread")
    await answer(send, 404 if path == "/wp-login.php" else 200)

print(json.dumps([
    answers(app, "/notes/2024-01-05?q=secret", "/users/17", "/wp-login.php", "/fails"),
    answers(app, "/child", headers={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}),
]))
"""
)


def test_one_trace_a_request(run_app, exporting_to, sink):
    """Each request is a SERVER span named by route or template, the queries of its thread below it, without secrets."""
    finished = run_app(APP, exporting_to(sink.endpoint))
    assert finished.json() == [[200, 200, 404, 500], [200]], finished.err
    served = {span.name: span for span in sink.spans if span.kind == 2}
    assert set(served) == {"GET /notes/{…}", "GET /users/{user_id:int}", "GET *", "GET /fails", "GET /child"}
    assert served["GET /users/{user_id:int}"].attributes["http.route"] == "/users/{user_id:int}"
    assert served["GET /notes/{…}"].attributes["url.template"] == "/notes/{…}"
    assert served["GET /notes/{…}"].attributes["http.response.status_code"] == 200
    assert "http.route" not in served["GET /notes/{…}"].attributes
    assert served["GET /fails"].attributes["error.type"] == "RuntimeError"
    assert served["GET /fails"].status == 2
    assert served["GET /child"].parent_span_id.hex() == "b7ad6b7169203331"
    assert all(not s.parent_span_id for name, s in served.items() if name != "GET /child")
    assert b"/notes/2024-01-05" in sink.raw  # the path is there, and of the rest nothing
    assert b"secret" not in sink.raw
    assert b"private words" not in sink.raw
    queries = [span.parent_span_id for span in sink.named("SELECT")]
    assert sorted(queries) == sorted(s.span_id for name, s in served.items() if name != "GET /fails")
    assert not [span.name for span in sink.spans if span.name.endswith((" send", " receive"))]
    assert not [span.name for span in sink.spans if span.name.startswith("import opentelemetry.instrumentation.asgi")]


OWN = (
    SERVE
    + """
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

async def app(scope, receive, send):
    await answer(send)

def wrapped(app):
    async def middleware(scope, receive, send):
        await app(scope, receive, send)
    return middleware

own = wrapped(OpenTelemetryMiddleware(app, default_span_details=lambda scope: ("own name", {})))
print(json.dumps(answers(own, "/a", "/b")))
"""
)


def test_an_application_with_its_own_middleware_is_left_alone(run_app, exporting_to, sink):
    """There is one SERVER span a request, the application's own."""
    finished = run_app(OWN, exporting_to(sink.endpoint))
    assert finished.json() == [200, 200], finished.err
    assert [span.name for span in sink.spans if span.kind == 2] == ["own name", "own name"]
    assert not sink.named("GET /a")


def test_switched_off_the_application_is_served_as_it_is(run_app, exporting_to, sink):
    """OTEL_PYTHON_DISABLED_INSTRUMENTATIONS and OTEL_PYTHON_EXCLUDED_URLS do what they say."""
    off = exporting_to(sink.endpoint, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="hubscope_uvicorn")
    assert run_app(APP, off).json()[1] == [200]
    assert not [span for span in sink.spans if span.kind == 2]
    excluded = exporting_to(sink.endpoint, OTEL_PYTHON_EXCLUDED_URLS="notes,users,wp-login,fails")
    assert run_app(APP, excluded).json()[1] == [200]
    assert [span.name for span in sink.spans if span.kind == 2] == ["GET /child"]


async def _plain(scope, receive, send):
    return


class _Holding:
    def __init__(self, app: object) -> None:
        self.app = app

    async def __call__(self, scope, receive, send):
        return


class _Instrumented(_Holding):
    _is_instrumented_by_opentelemetry = True


class _Declaring(_Holding):
    """As Starlette keeps its middleware before it builds the stack."""

    def __init__(self, kind: type) -> None:
        self.user_middleware = [type("Middleware", (), {"cls": kind})()]


class _Native(_Holding):
    """As FastAPI keeps what it was told about its own telemetry."""

    def __init__(self, tracing: bool) -> None:
        self._native_telemetry = type("NativeTelemetry", (), {"config": {"tracing": tracing}})()


def _closed_over(app):
    async def middleware(scope, receive, send):
        await app(scope, receive, send)

    return middleware


@pytest.mark.parametrize(
    ("app", "measured"),
    [
        (_plain, False),
        (_Holding(_closed_over(_Holding(_plain))), False),
        (_Declaring(_Holding), False),
        (_Native(False), False),
        (_Holding(_Native(True)), True),
        (OpenTelemetryMiddleware(_plain), True),
        (_Holding(_closed_over(OpenTelemetryMiddleware(_plain))), True),
        (_Holding(_Instrumented(_plain)), True),
        (_Holding(_Declaring(OpenTelemetryMiddleware)), True),
        (functools.partial(_Holding(OpenTelemetryMiddleware(_plain)).__call__), True),
    ],
)
def test_a_middleware_is_found_wherever_it_is(app, measured):
    """In attributes, closures, bound methods and what Starlette declares."""
    assert measured_already(app) is measured


def test_applications_that_hold_each_other_end_the_search():
    """A cycle is looked at once."""
    first, second = _Holding(None), _Holding(None)
    first.app, second.app = second, first
    assert measured_already(first) is False


LATE = (
    SERVE
    + """
import queue
writes, written = queue.Queue(), queue.Queue()

def writer():
    while (text := writes.get()) is not None:
        sqlite3.connect(":memory:").execute(text).fetchall()
        written.put(text)

thread = None

async def app(scope, receive, send):
    global thread
    if thread is None:
        thread = threading.Thread(target=writer, daemon=True)
        thread.start()
        writes.put("select 1 as first")
        written.get(timeout=10)
    await answer(send)

answers(app, "/starts")
writes.put("select 2 as second, 2 as more")
written.get(timeout=10)
writes.put(None)
thread.join()
print("{}")
"""
)


def test_a_thread_that_outlives_its_request(run_app, exporting_to, sink):
    """What it does during the request is the request's; afterwards its queries are roots, not more of that request."""
    finished = run_app(LATE, exporting_to(sink.endpoint))
    assert (finished.code, finished.err) == (0, "")
    request = sink.one("GET /starts")
    during, after = sorted(sink.named("SELECT"), key=lambda span: span.start_ns)
    assert during.parent_span_id == request.span_id
    assert after.parent_span_id == b""
    assert after.trace_id != request.trace_id


def test_a_start_ends_and_its_threads_queries_are_its_own(run_app, exporting_to, sink):
    """Queries in an executor before the server listens belong to the start, which ends as it listens."""
    text = SERVE + (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def query(): sqlite3.connect(':memory:').execute('select 1').fetchall()\n"
        "with ThreadPoolExecutor() as pool: pool.submit(query).result()\n"
        "async def app(scope, receive, send): await answer(send)\n"
        "answers(app, '/x')\n"
    )
    assert run_app(text, exporting_to(sink.endpoint)).err == ""
    root = sink.one("hub.startup")
    assert root.attributes["hub.startup.end"] == "listening"
    assert sink.one("SELECT").parent_span_id == root.span_id
    assert sink.one("GET /x").trace_id != root.trace_id


def test_a_lifespan_and_a_websocket_pass_through(recorded):
    """Other scopes reach the application with its own scope object."""
    from hubscope.instrumentation.libraries.uvicorn import ServedApplication

    seen = []

    async def app(scope, receive, send):
        seen.append(scope)

    scopes = [{"type": "lifespan"}, {"type": "websocket", "path": "/"}]
    for scope in scopes:
        asyncio.run(ServedApplication(app)(scope, None, None))
    assert all(got is sent for got, sent in zip(seen, scopes, strict=True))
