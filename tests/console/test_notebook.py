"""The notebook: written for a lake, never over somebody's edits, and every cell runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from hubscope.analytics import engine, notebook
from hubscope.errors import ConfigError

Hubscope = Callable[..., Result]


def cells(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["cells"]
    return found


def test_it_is_written_for_this_lake(hubscope: Hubscope, lake: Path, tmp_path: Path) -> None:
    """The first code cell holds the lake's path, and nothing else of the notebook does."""
    result = hubscope("notebook", tmp_path / "new" / "folder", "--lake", lake)
    assert result.exit_code == 0, result.output
    path = tmp_path / "new" / "folder" / "hubscope.ipynb"
    assert result.stdout.strip() == str(path)
    code = ["".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "code"]
    assert f"Lake({str(lake)!r})" in code[0]
    assert not any(str(lake) in source for source in code[1:])


def test_its_queries_are_the_shipped_ones(lake: Path) -> None:
    """Every query that a cell asks for is a shipped file; no cell holds a copy of one."""
    source = notebook.document(str(lake))
    asked = re.findall(r'lake\.ask\(\\"(\w+)\\"', source)
    assert len(asked) >= 8
    assert set(asked) <= set(engine.names())
    assert "FROM otel_" not in source


def test_an_edited_notebook_is_left_alone(hubscope: Hubscope, lake: Path, tmp_path: Path) -> None:
    """Written again over its own work silently; over an edit only with --force."""
    path = tmp_path / "hubscope.ipynb"
    assert hubscope("notebook", tmp_path, "--lake", lake).exit_code == 0
    assert hubscope("notebook", tmp_path, "--lake", lake).exit_code == 0
    document = json.loads(path.read_text("utf-8"))
    document["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["hello"]}]
    path.write_text(json.dumps(document))
    assert hubscope("notebook", tmp_path, "--lake", lake).exit_code == 0, "outputs are no edits"
    document["cells"][1]["source"] = ["print(1)"]
    path.write_text(json.dumps(document))
    refused = hubscope("notebook", tmp_path, "--lake", lake)
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert cells(path)[1]["source"] == ["print(1)"]
    assert hubscope("notebook", tmp_path, "--lake", lake, "--force").exit_code == 0
    assert cells(path)[1]["source"] != ["print(1)"]
    path.write_text("no notebook at all")
    assert hubscope("notebook", tmp_path, "--lake", lake).exit_code == 2


def test_every_cell_runs_and_answers(hubscope: Hubscope, lake: Path, tmp_path: Path) -> None:
    """Executed by a real kernel against the lake: no cell errs, each shows something, every table has rows."""
    import nbclient
    import nbformat

    hubscope("notebook", tmp_path, "--lake", lake)
    document = nbformat.read(tmp_path / "hubscope.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(document)
    nbclient.NotebookClient(document, timeout=60, kernel_name="python3").execute()
    for cell in document.cells:
        if cell.cell_type != "code":
            continue
        assert cell.outputs, cell.source
        assert all(output.output_type != "error" for output in cell.outputs)
        assert not any(output.get("name") == "stderr" for output in cell.outputs), cell.outputs
        shown = json.dumps([output.get("data", output.get("text")) for output in cell.outputs])
        assert "Nothing of this kind" not in shown, cell.source
        assert "No rows" not in shown, cell.source
        if "display(" in cell.source:
            assert "<table>" in shown
            assert "image/svg+xml" in shown


def test_rows_are_asked_and_grouped(lake: Path) -> None:
    """Rows can be narrowed, sorted, grouped and joined; a column that is not there is named."""
    found = notebook.Lake(lake)
    assert found.services == ("reference-hub",)
    phases = found.ask("startup_phases").by("phase", "sum_s", how="mean")
    assert list(phases) == [{"phase": "load", "sum_s": pytest.approx(0.45)}]
    assert len(found.sql("SELECT 1 AS a WHERE $x > 2", x=1)) == 0
    with pytest.raises(ConfigError, match="no column 'nope'"):
        phases.only("nope")
    with pytest.raises(ConfigError, match="min_count"):
        found.ask("n_plus_one")
    with pytest.raises(ConfigError, match="no service 'other'"):
        notebook.Lake(lake, service="other")


def test_plots_escape_and_bound() -> None:
    """Names are escaped, negative and missing values do not break a plot, and the number of bars is bounded."""
    import xml.etree.ElementTree as ElementTree

    from hubscope.analytics.notebook_plots import MOST_BARS, bars, by_run

    rows = [{"n": f"<b>{i}</b>", "v": float(i - 1)} for i in range(50)] + [{"n": None, "v": None}]
    for plot in (bars(rows, "n", "v"), by_run(rows, "v", series="n"), bars([], "n", "v"), by_run([], "v")):
        ElementTree.fromstring(plot._repr_svg_())
    rectangles = ElementTree.fromstring(bars(rows, "n", "v").svg).findall("{http://www.w3.org/2000/svg}rect")
    assert len(rectangles) == MOST_BARS + 1
