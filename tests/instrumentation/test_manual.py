"""The blocks measured by hand."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from hubscope import instrumentation as hub


def _attributes(span) -> dict[str, object]:
    return dict(span.attributes)


def test_importing_is_lean(environ):
    """Neither importing the façade nor its no-op use imports OpenTelemetry, Arrow or DuckDB."""
    text = (
        "import sys; from hubscope import instrumentation as hub\n"
        "with hub.phase('x'), hub.task('t'), hub.query('select 1'), hub.vector_search('i'):\n"
        "    hub.interactive(); hub.first_render(); hub.rating(1)\n"
        "watch = hub.watch_cache('c'); watch.hit('k')\n"
        "with watch.miss('k'): pass\n"
        "print([m for m in ('opentelemetry', 'pyarrow', 'duckdb', 'psutil', 'grpc') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", text], env=environ, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_block_makes_its_span_and_metric(recorded):
    """Names, attributes and metrics are those of semconv."""
    with hub.phase("personas"):
        pass
    with hub.query("select a from t where b = 'x'", namespace="hub.db") as query:
        query.rows(3)
    with hub.vector_search("memories", top_k=5, dimensions=1536, metric="cosine", size=10, system="usearch"):
        pass
    with hub.vector_upsert("memories", batch_size=7):
        pass
    with hub.memory_operation("search", store="main", persona="ada"):
        pass
    with hub.plugin_call("weather", "forecast", tier="premium", permissions=("network",)):
        pass
    with hub.task("ask", persona="ada"):
        pass
    assert [span.name for span in recorded.spans] == [
        "hub.startup.phase personas",
        "SELECT t",
        "search memories",
        "upsert memories",
        "search_memory main",
        "plugin weather forecast",
        "task ask",
    ]
    assert _attributes(recorded.one("SELECT t"))["db.response.returned_rows"] == 3
    assert _attributes(recorded.one("search memories"))["hub.vector.top_k"] == 5
    plugin = _attributes(recorded.one("plugin weather forecast"))
    assert plugin["hub.plugin.permissions"] == ("network",)
    assert plugin["hub.plugin.cpu_time"] >= 0
    assert {
        "db.client.operation.duration",
        "db.client.response.returned_rows",
        "hub.vector.search.duration",
        "hub.vector.index.duration",
        "hub.vector.index.size",
        "hub.plugin.call.duration",
        "hub.task.duration",
    } <= recorded.metrics().keys()


def test_blocks_nest(recorded):
    """A block inside another is its child, also across an await."""

    @hub.task("ask")
    async def ask() -> None:
        await asyncio.sleep(0)
        async with hub.memory_operation("search", store="main"):
            await asyncio.sleep(0)

    asyncio.run(ask())
    assert recorded.one("search_memory main").parent.span_id == recorded.one("task ask").context.span_id


def test_decorators_keep_the_function(recorded):
    """Plain, async, generator and async generator functions stay what they are; each call is measured alone."""

    @hub.phase("plain")
    def plain(n: int) -> int:
        "Says n."
        return plain(n - 1) if n else 0

    @hub.phase("generator")
    def generator():
        got = yield 1
        return got

    @hub.phase("agenerator")
    async def agenerator():
        yield 1

    async def consume() -> list[int]:
        return [item async for item in agenerator()]

    assert plain(2) == 0
    assert plain.__doc__ == "Says n."
    running = generator()
    assert next(running) == 1
    with pytest.raises(StopIteration) as stopped:
        running.send("sent")
    assert stopped.value.value == "sent"
    assert asyncio.run(consume()) == [1]
    names = [span.name.rpartition(" ")[2] for span in recorded.spans]
    assert names == ["plain", "plain", "plain", "generator", "agenerator"]


def test_a_failure_is_told_and_goes_on(recorded):
    """The span has an error status and the exception's class, not its message; exit code 0 is no failure."""
    with pytest.raises(KeyError), hub.task("ask"):
        raise KeyError("private")
    with pytest.raises(SystemExit), hub.task("leave"):
        raise SystemExit(0)
    failed = recorded.one("task ask")
    assert failed.attributes["error.type"] == "KeyError"
    assert not failed.status.is_ok
    assert "private" not in failed.to_json()
    assert "error.type" not in recorded.one("task leave").attributes


def test_nothing_of_ours_reaches_the_application(recorded, monkeypatch):
    """When the SDK itself fails, the block still runs."""

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("SDK")

    monkeypatch.setattr(recorded.handles.tracer, "start_span", broken)
    ran = []
    with hub.task("ask"):
        ran.append(1)
    assert hub.query("select 1")(lambda: ran.append(2) or "kept")() == "kept"
    assert ran == [1, 2]


def test_ratings(recorded, caplog):
    """A rating between 0 and 1 is a metric and an event; another value is refused on the log."""
    hub.rating(0.25, task="ask")
    hub.rating(7)
    hub.rating("good")  # type: ignore[arg-type]  # wrong on purpose
    assert recorded.events == [("hub.rating", {"hub.satisfaction.rating": 0.25, "hub.task.name": "ask"})]
    [point] = recorded.metrics()["hub.satisfaction"]
    assert (point.count, point.sum) == (1, 0.25)
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        "hub.rating: expected a number between 0 and 1, got 7",
        "hub.rating: expected a number between 0 and 1, got 'good'",
    ]


def test_a_watched_cache(recorded):
    """Hits and misses are counted, loads timed, and the access log sent in stretches of 1,000 hashed keys."""
    watch = hub.watch_cache("answers", capacity=2, tier="warm")
    for at in range(1001):
        if at % 2:
            watch.hit("even secret")
        else:
            with watch.miss(at):
                pass
    watch.flush()
    watch.flush()
    (name, first), (_, rest) = recorded.events
    assert name == "hub.cache.access"
    assert first["hub.cache.capacity"] == 2
    keys = first["hub.cache.keys"].split(",")
    assert len(keys) == 1000
    assert len(set(keys)) == 501
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys)
    assert first["hub.cache.hits"] == "01" * 500
    assert rest["hub.cache.hits"] == "0"
    counts = {p.attributes["hub.cache.result"]: p.value for p in recorded.metrics()["hub.cache.requests"]}
    assert counts == {"hit": 500, "miss": 501}
    assert sum(span.name == "load answers" for span in recorded.spans) == 501
    assert recorded.metrics()["hub.cache.load.duration"][0].count == 501


def test_a_mistyped_name_is_an_error():
    """The façade says what it has not."""
    with pytest.raises(AttributeError, match="fase"):
        hub.fase  # type: ignore[attr-defined]  # noqa: B018 - the look-up is the test
