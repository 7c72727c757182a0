"""The front under test, or another OTLP server that the same rules are asked of (HUBSCOPE_DUTIES_AGAINST)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hubscope.collector.configuration.settings import Limits
from tests.collector.duties.wire import MIB, Front, Other, Target


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A front with a request limit of 1 MiB; HUBSCOPE_DUTIES_AGAINST=GRPC,HTTP,SINK (ports) names another server."""
    other = os.environ.get("HUBSCOPE_DUTIES_AGAINST")
    if other:
        yield Other(other)
        return
    limits = Limits(request_size_bytes=MIB, waiting_size_bytes=64 * MIB)
    front = Front(tmp_path_factory.mktemp("duties") / "lake", limits=limits)
    yield front
    front.end()


@pytest.fixture(autouse=True)
def only_what_others_have(request: pytest.FixtureRequest) -> None:
    """Another server is asked the rules about requests, not those about our settings and our lake."""
    if os.environ.get("HUBSCOPE_DUTIES_AGAINST") and "target" not in request.fixturenames:
        pytest.skip("about this collector")


@pytest.fixture
def new_front(tmp_path: Path) -> Iterator[Callable[..., Front]]:
    """`new_front(**settings)`: a front of its own."""
    made: list[Front] = []

    def make(**changes: Any) -> Front:
        made.append(Front(tmp_path / f"lake-{len(made)}", **changes))
        return made[-1]

    yield make
    for front in made:
        front.end()
