"""Importing what the lake gave away: its spans are there once, nothing is derived of them again, and it is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from deltalake import DeltaTable

from hubscope.collector.imports import chunks, import_files
from hubscope.console.main import main
from hubscope.lake_schema import SCHEMAS, TRACES

START_NS = 1_700_000_000_000_000_123


def document(numbers: range, name: str = "s", start_ns: int = START_NS) -> str:
    """Spans of one trace."""
    spans = [
        {
            "name": f"{name}{number}",
            "traceId": "ab" * 16,
            "spanId": f"{number + 1:016x}",
            "kind": 2,
            "startTimeUnixNano": str(start_ns + number * 10**9),
            "endTimeUnixNano": str(start_ns + number * 10**9 + 5_000_000),
        }
        for number in numbers
    ]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]}) + "\n"


def run(lake: Path, *arguments: str) -> Result:
    result = CliRunner().invoke(main, [arguments[0], "--lake", str(lake), *arguments[1:]])
    assert result.exit_code == 0, result.output
    return result


def imported(lake: Path, file: Path, content: str) -> str:
    file.write_text(content)
    return run(lake, "import", str(file)).stdout.removeprefix(f"{file}: ")


def names(lake: Path) -> list[str]:
    found: list[str] = DeltaTable(f"{lake}/{TRACES}").to_pyarrow_table(columns=["SpanName"])["SpanName"].to_pylist()
    return sorted(found)


def rows(lake: Path) -> dict[str, int]:
    return {name: DeltaTable(f"{lake}/{name}").count() for name in SCHEMAS}


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A lake of ten spans, s0 to s9."""
    imported(tmp_path / "lake", tmp_path / "first.json", document(range(10)))
    return tmp_path / "lake"


def test_an_exported_trace_comes_back_as_nothing(lake: Path, tmp_path: Path) -> None:
    """`trace --format otlp`, then `import` into the same lake: no table has a row more, and the summary says so."""
    before = rows(lake)
    exported = run(lake, "trace", "ab", "--format", "otlp").stdout
    assert imported(lake, tmp_path / "x.json", exported) == "10 accepted, all of them in the lake already, 0 rejected\n"
    assert rows(lake) == before
    elsewhere = imported(tmp_path / "other", tmp_path / "x.json", exported)
    assert elsewhere == "10 accepted, 0 rejected\n"


def test_what_is_new_beside_it_comes_in(lake: Path, tmp_path: Path) -> None:
    """Only the known spans of a file are left out, wherever its chunks end; importing it again changes nothing."""
    content = document(range(5, 15)) + document(range(20, 22))
    assert imported(lake, tmp_path / "x.json", content) == "12 accepted, 5 in the lake already, 0 rejected\n"
    expected = sorted(f"s{number}" for number in (*range(15), 20, 21))
    assert names(lake) == expected
    assert "all of them in the lake already" in imported(lake, tmp_path / "x.json", content)
    assert names(lake) == expected


def test_jaegers_microseconds_are_known(lake: Path, tmp_path: Path) -> None:
    """A trace that was forwarded to Jaeger and downloaded begins up to 999 ns earlier, and is the same."""
    earlier = document(range(10), start_ns=START_NS // 1000 * 1000)
    assert "10 accepted, all of them" in imported(lake, tmp_path / "x.json", earlier)


def test_the_other_half_of_a_call_is_another_span(lake: Path, tmp_path: Path) -> None:
    """Ids alone do not make two spans one: client and server may share them, and then differ in kind or name."""
    client = document(range(10)).replace('"kind": 2', '"kind": 3')
    assert imported(lake, tmp_path / "client.json", client) == "10 accepted, 0 rejected\n"
    assert imported(lake, tmp_path / "other.json", document(range(10), "t")) == "10 accepted, 0 rejected\n"
    assert len(names(lake)) == 30


def test_spans_that_a_file_holds_twice_are_its_own(tmp_path: Path) -> None:
    """Only what the lake had when the import began is left out: of the file nothing is."""
    assert imported(tmp_path / "new", tmp_path / "x.json", document(range(3)) * 2) == "6 accepted, 0 rejected\n"


def test_an_interrupted_import_of_partly_known_spans_goes_on(
    lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk whose spans are written is finished as itself: its own spans are not taken for somebody else's."""
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1)
    taken, seen = import_files.batch_of, 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == 3:
            raise KeyboardInterrupt
        return taken(*arguments)

    file = tmp_path / "x.json"
    file.write_text("".join(document(range(n, n + 4)) for n in (8, 12, 16, 20)))
    with monkeypatch.context() as patch:
        patch.setattr(import_files, "batch_of", interrupted)
        assert CliRunner().invoke(main, ["import", "--lake", str(lake), str(file)]).exit_code == 130
    run(lake, "import", str(file))
    assert names(lake) == sorted(f"s{number}" for number in range(24))


def test_no_lease_is_left(lake: Path) -> None:
    """The files that were looked into are held while the import runs, and not after it."""
    assert list((lake / ".state" / "readers").glob("*")) == []
