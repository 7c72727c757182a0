"""The examples on the path, and the data of a small hub, made once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MEMORIES = 1_500

if str(EXAMPLES) not in sys.path:
    sys.path.insert(0, str(EXAMPLES))


@pytest.fixture(scope="session")
def examples() -> Path:
    """The folder of the example applications."""
    return EXAMPLES


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,500 real docstrings as memories, with their vectors and the index."""
    from reference_hub.prepare import prepare

    folder = tmp_path_factory.mktemp("prepared")
    facts = prepare(folder, MEMORIES)
    assert facts["memories"] == MEMORIES
    return folder


@pytest.fixture
def data(prepared: Path, tmp_path: Path) -> Path:
    """A data folder that a hub may write to."""
    from reference_hub.prepare import copy

    copy(prepared, tmp_path / "data")
    return tmp_path / "data"
