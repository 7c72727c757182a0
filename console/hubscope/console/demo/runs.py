"""What the demo runs: the data made once, a collector of its own, Datasette and the two versions of the hub."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hubscope.collector.configuration.addresses import Address
from hubscope.console import collector_link, local_collector
from hubscope.console.demo.children import STOP_DEADLINE_S, environment, hubscope, module, started
from hubscope.console.demo.place import Place
from hubscope.console.local_collector import Wanted
from hubscope.errors import LakeError

VERSIONS: Final = ("1", "2")
HUB: Final = "reference-hub"
DATASETTE: Final = "datasette"
QUERYABLE_DEADLINE_S: Final = 30.0  # the promise is 2 s; a busy machine takes longer


@dataclass(frozen=True)
class Size:
    """How much each run does. The defaults fit the whole demo into 90 s on two cores."""

    memories: int = 20_000
    questions: int = 6
    browses: int = 6
    additions: int = 4
    visits: int = 10


@dataclass(frozen=True)
class Done:
    """One run as its users saw it."""

    instance: str
    requests: int
    seconds: float


@dataclass(frozen=True)
class Collector:
    endpoint: str
    state: Path


def prepare(place: Place, size: Size) -> str:
    """Makes what is not there yet, both data sets side by side; returns one line on what they hold."""
    env = environment(place.examples)
    cities_folder, hub_folder = place.prepared / "cities", place.prepared / "hub"
    copies = [word for version in VERSIONS for word in ("--copy-to", str(place.hub_data(version)))]
    memories = ("--data", str(hub_folder), "--memories", str(size.memories), *copies)
    with (
        started(
            "the preparation of the memories",
            module("reference_hub.prepare", *memories),
            env,
            place.run / "logs" / "prepare-memories.log",
        ) as of_memories,
        started(
            "the preparation of the cities",
            module("datasette_cities.build", "--data", str(cities_folder)),
            env,
            place.run / "logs" / "prepare-cities.log",
        ) as of_cities,
    ):
        cities, made = _last_json(of_cities.wait()), _last_json(of_memories.wait())
    return f"{cities['cities']:,} cities, {made['memories']:,} docstrings of {made['packages']} packages as memories"


@contextmanager
def collector(place: Place, rules: str) -> Iterator[Collector]:
    """A collector with a lake of its own on free ports, by this rules file; stopped at the end."""
    state = place.lake / ".state"
    state.mkdir(parents=True, exist_ok=True)
    grpc, http, telemetry = (Address("127.0.0.1", port) for port in _free_ports(3))
    with ExitStack() as stack:
        stack.enter_context(local_collector.lease(state))
        stack.callback(_stop_collector, state)
        local_collector.start(str(place.lake), state, Wanted(grpc, http, telemetry), ("--rules", rules))
        yield Collector(f"http://{http}", state)


def run_datasette(place: Place, to: Collector, size: Size, number: int) -> Done:
    """Datasette as it is, over the cities, visited; returns when all it told can be queried."""
    import importlib.metadata

    instance = str(uuid.uuid4())
    cities = place.prepared / "cities"
    command = hubscope(
        *("run", "--service", DATASETTE, "--version", importlib.metadata.version("datasette")),
        *("--collector", to.endpoint, "--"),
        *module("datasette", "serve", str(cities / "cities.db"), "--metadata", str(cities / "metadata.json")),
        *("--port", "0"),
    )
    env = environment(place.examples, {"service.instance.id": instance})
    with started("Datasette", command, env, place.run / "logs" / f"datasette-{number}.log") as app:
        load = module("datasette_cities.load", app.url(), "--requests", str(size.visits), "--seed", str(number))
        log = place.run / "logs" / f"datasette-{number}-visitors.log"
        with started("the load on Datasette", load, environment(place.examples), log) as visitors:
            seen = _last_json(visitors.wait())
        app.stop()
    _settle(to)
    return Done(instance, seen["requests"], seen["seconds"])


def run_hub(place: Place, to: Collector, size: Size, version: str, number: int) -> Done:
    """One run of the reference hub under load; returns when all it told can be queried.

    Raises LakeError if the lake does not hold one root span for each request that was answered.
    """
    instance = str(uuid.uuid4())
    command = hubscope(
        *("run", "--service", HUB, "--version", version, "--collector", to.endpoint, "--"),
        *module("reference_hub", "--data", str(place.hub_data(version)), "--port", "0", "--version-preset", version),
    )
    env = environment(place.examples, {"service.instance.id": instance})
    name = f"hub-{version}-{number}"
    with started(f"the reference hub, version {version}", command, env, place.run / "logs" / f"{name}.log") as app:
        load = module(
            *("reference_hub.load", app.url(), "--seed", str(number), "--questions", str(size.questions)),
            *("--browses", str(size.browses), "--additions", str(size.additions)),
        )
        log = place.run / "logs" / f"{name}-users.log"
        with started("the load on the reference hub", load, environment(place.examples), log) as users:
            seen = _last_json(users.wait())
        app.stop()
    _settle(to)
    recorded = _tasks(place.lake, instance)
    if recorded != seen["requests"]:
        raise LakeError(
            f"version {version}, run {number}: {seen['requests']} tasks were done and {recorded} are in the lake",
            f"see {place.run / 'logs' / name}.log and {to.state / 'collector.log'}",
        )
    return Done(instance, seen["requests"], seen["seconds"])


def _settle(to: Collector) -> None:
    if not local_collector.wait_until_queryable(to.state, QUERYABLE_DEADLINE_S):
        raise LakeError(
            f"the collector has not written all it received after {QUERYABLE_DEADLINE_S:g} s",
            f"its log is {to.state / 'collector.log'}",
        )


def _tasks(lake: Path, instance: str) -> int:
    """The root spans of user tasks that one run left in the lake."""
    from hubscope.analytics.connect import connect

    with connect(str(lake)) as engine:
        row = engine.execute(
            "SELECT count(*) FROM otel_traces"
            " WHERE ServiceInstanceId = ? AND ParentSpanId = '' AND SpanName LIKE 'task %'",
            [instance],
        ).fetchone()
    return int(row[0]) if row else 0


def _last_json(printed: str) -> dict[str, Any]:
    """The JSON object in the last line that a program printed."""
    found: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    return found


def _free_ports(count: int) -> list[int]:
    """Ports that nothing uses: all are held at once, so that they differ."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]


def _stop_collector(state: Path) -> None:
    """Asks the collector to stop and waits; it writes what it has and is killed only if it does not come to an end."""
    import psutil

    record = collector_link.recorded(state)
    if record is None:
        return
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(int(record["pid"]))
        family = [process, *process.children(recursive=True)]
        os.kill(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + 2 * STOP_DEADLINE_S
        _, alive = psutil.wait_procs(family, timeout=max(0.0, deadline - time.monotonic()))
        for left in alive:
            with suppress(psutil.NoSuchProcess):
                left.kill()
