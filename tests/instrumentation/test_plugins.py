"""Entry points, stevedore and MCP, the real ones. mcp is installed by tests/suites/versions.py only."""

from __future__ import annotations

import importlib.metadata
import types
from collections.abc import Iterator
from typing import Any

import pytest

from hubscope.instrumentation.libraries.entry_points import EntryPointsInstrumentor
from hubscope.instrumentation.libraries.mcp import McpInstrumentor
from hubscope.instrumentation.libraries.stevedore import StevedoreInstrumentor


@pytest.fixture
def measured(recorded) -> Iterator[None]:
    """All three measured for one test."""
    kinds = (EntryPointsInstrumentor, StevedoreInstrumentor, McpInstrumentor)
    for kind in kinds:
        kind().instrument()
    yield
    for kind in kinds:
        kind().uninstrument()


def _calls(recorded: Any) -> dict[tuple[str, str], int]:
    """(plugin, hook) -> calls, by the metric."""
    points = recorded.metrics().get("hub.plugin.call.duration", [])
    return {(p.attributes["hub.plugin.id"], p.attributes["hub.plugin.hook"]): p.count for p in points}


def test_loading_an_entry_point_is_a_call_of_its_plugin(measured, recorded):
    """Each load is timed, a failed one has a span; OpenTelemetry's own are not measured."""
    point = importlib.metadata.EntryPoint("clock", "time:time", "app.plugins")
    assert point.load() is __import__("time").time
    with pytest.raises(ModuleNotFoundError):
        importlib.metadata.EntryPoint("gone", "no_such_module_here:x", "app.plugins").load()
    importlib.metadata.EntryPoint("otel", "time:time", "opentelemetry_instrumentor").load()
    assert _calls(recorded) == {("clock", "load"): 1, ("gone", "load"): 1}
    assert recorded.one("plugin gone load").attributes["error.type"] == "ModuleNotFoundError"


def test_a_map_of_stevedore_is_split_by_extension(measured, recorded):
    """Each extension of a map is a call of its own; what one raises is handled by the manager as before."""
    stevedore = pytest.importorskip("stevedore")

    def extension(name: str, answer: Any) -> Any:
        point = importlib.metadata.EntryPoint(name, "time:time", "app.plugins")
        return stevedore.extension.Extension(name, point, answer, None)

    manager = stevedore.ExtensionManager.make_test_instance(
        [extension("good", lambda: 1), extension("bad", lambda: 1 / 0)], namespace="app.plugins"
    )
    assert manager.map(lambda found: found.plugin()) == [1]
    assert _calls(recorded) == {("good", "app.plugins"): 1, ("bad", "app.plugins"): 1}
    assert recorded.one("plugin bad app.plugins").attributes["error.type"] == "ZeroDivisionError"


def test_uninstrumenting_gives_everything_back(recorded):
    """Afterwards the classes have their own methods."""
    stevedore = pytest.importorskip("stevedore")
    owners = (importlib.metadata.EntryPoint, stevedore.ExtensionManager)
    before = [dict(vars(owner)) for owner in owners]
    for kind in (EntryPointsInstrumentor, StevedoreInstrumentor):
        kind().instrument()
    assert all(dict(vars(owner)) != was for owner, was in zip(owners, before, strict=True))
    for kind in (EntryPointsInstrumentor, StevedoreInstrumentor):
        kind().uninstrument()
    assert [dict(vars(owner)) for owner in owners] == before


@pytest.fixture
def mcp() -> types.ModuleType:
    """The library."""
    return pytest.importorskip("mcp")


def _version() -> int:
    return int(importlib.metadata.version("mcp").partition(".")[0])


def test_mcp_1_requests_have_spans(measured, recorded, mcp):
    """A tool call is one span at the server and one at the client, without arguments; a tool's error has failed."""
    if _version() != 1:
        pytest.skip("mcp 2 has spans of its own")
    import asyncio

    from mcp.server.fastmcp import FastMCP
    from mcp.shared.memory import create_connected_server_and_client_session

    server = FastMCP("hub")

    @server.tool()
    def add(a: int, b: int) -> int:
        return a + b

    @server.tool()
    def fail(text: str) -> str:
        raise ValueError(text)

    async def ask() -> None:
        async with create_connected_server_and_client_session(server._mcp_server) as client:
            assert not (await client.call_tool("add", {"a": 1, "b": 2})).isError
            assert (await client.call_tool("fail", {"text": "secret"})).isError

    asyncio.run(ask())
    added = [span for span in recorded.spans if span.name == "tools/call add"]
    assert sorted(span.kind.name for span in added) == ["CLIENT", "SERVER"]
    failed = [span for span in recorded.spans if span.name == "tools/call fail"]
    assert [span.attributes["error.type"] for span in failed] == ["tool_error", "tool_error"]
    assert added[0].attributes["gen_ai.operation.name"] == "execute_tool"
    assert {p.attributes["gen_ai.tool.name"] for p in recorded.metrics()["gen_ai.execute_tool.duration"]} == {
        "add",
        "fail",
    }
    assert not any("secret" in span.to_json() for span in recorded.spans)


_MCP_2 = """
import asyncio, json
from opentelemetry import trace
from hubscope.instrumentation.libraries.mcp import McpInstrumentor
McpInstrumentor().instrument()
from mcp import Client
from mcp.server.mcpserver import MCPServer
server = MCPServer("hub")
@server.tool()
def add(a: int, b: int) -> int:
    return a + b
async def ask():
    async with Client(server) as client:
        await client.call_tool("add", {"a": 1, "b": 2})
asyncio.run(ask())
"""


def test_mcp_2_spans_become_metrics(run_app, exporting_to, sink, mcp):
    """mcp's own spans arrive once, and the durations of requests and tools are derived from them."""
    if _version() < 2:
        pytest.skip("mcp 1 has no spans of its own")
    done = run_app(_MCP_2, exporting_to(sink.endpoint))
    assert done.code == 0, done.err
    assert sum(span.name == "tools/call add" and span.kind == 2 for span in sink.spans) == 1
    assert {"gen_ai.tool.name": "add"} in sink.points("gen_ai.execute_tool.duration")
    assert any(p.get("mcp.method.name") == "tools/call" for p in sink.points("mcp.server.operation.duration"))
