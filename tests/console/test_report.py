"""`hubscope report` and `hubscope compare`: one report in four forms, written where it was asked for."""

from __future__ import annotations

import json
import webbrowser
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from click.testing import Result

Hubscope = Callable[..., Result]


def test_the_forms_tell_the_same(hubscope: Hubscope, lake: Path) -> None:
    """Text, HTML and Markdown begin with the verdict of the JSON, which is valid by the shipped schema."""
    from hubscope.analytics.model import json_schema

    found = json.loads(hubscope("report", "--lake", lake, "--format", "json").stdout)
    jsonschema.validate(found, json_schema("report"))
    verdict = found["summary"]["verdict"]
    text = hubscope("report", "--lake", lake)
    assert text.exit_code == 0, text.output
    assert " ".join(text.stdout.split()).startswith(verdict)
    assert max(len(line) for line in text.stdout.splitlines()) <= 80
    markdown = hubscope("report", "--lake", lake, "--format", "markdown").stdout
    assert markdown.startswith("## ")
    page = hubscope("report", "--lake", lake, "--format", "html").stdout
    assert page.startswith("<!doctype html>")
    for finding in found["bottlenecks"]:
        assert " ".join(finding["sentence"].split()) in " ".join(text.stdout.split()) or len(found["bottlenecks"]) > 5


def test_it_is_written_to_a_file(hubscope: Hubscope, lake: Path, tmp_path: Path) -> None:
    """--output writes the whole file and nothing to stdout; a folder that is not there is an error in one line."""
    target = tmp_path / "report.html"
    result = hubscope("report", "--lake", lake, "--format", "html", "--output", target)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert target.read_text("utf-8").rstrip().endswith("</html>")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    nowhere = hubscope("report", "--lake", lake, "--output", tmp_path / "gone" / "report.txt")
    assert nowhere.exit_code == 4
    assert "cannot be written" in nowhere.stderr


def test_open_shows_the_html(hubscope: Hubscope, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--open sends the browser to the HTML file; without a browser that is said, and with another form refused."""
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: bool(opened.append(url)))
    target = tmp_path / "r.html"
    result = hubscope("report", "--lake", lake, "--open", "--output", target)
    assert result.exit_code == 0, result.output
    assert opened == [target.as_uri()]
    assert "open the file by hand" in result.stderr
    assert hubscope("report", "--lake", lake, "--open", "--format", "json").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--since", "yesterday"], "neither an age such as 24h"),
        (["--since", "2026-03-02", "--until", "2026-03-01"], "is not after --since"),
        (["--format", "pdf"], "'pdf' is not one of"),
        (["--database", "/no/such.db"], "does not exist"),
        (["--database", __file__], "is no SQLite database"),
    ],
)
def test_wrong_usage_is_2(arguments: list[str], words: str, hubscope: Hubscope, lake: Path) -> None:
    """Each wrong argument is named with what would be right, before the lake is read."""
    result = hubscope("report", "--lake", lake, *arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


def test_a_window_narrows_the_report(hubscope: Hubscope, lake: Path) -> None:
    """What lies outside --since and --until is not in the report."""
    arguments = ("--since", "2026-03-02T10:00:25+00:00", "--until", "2026-03-02T11:00:00+00:00", "--format", "json")
    found = json.loads(hubscope("report", "--lake", lake, *arguments).stdout)
    assert {run["version"] for run in found["runs"]} == {"2"}


def test_no_lake_is_4(hubscope: Hubscope, tmp_path: Path) -> None:
    """A place without a lake is said to be one, with what fills it."""
    result = hubscope("report", "--lake", tmp_path / "none")
    assert result.exit_code == 4
    assert "hubscope run" in result.stderr


def test_two_versions_are_compared(hubscope: Hubscope, lake: Path) -> None:
    """Version 2 took half the time in every run; text and JSON say so, and every metric is listed."""
    result = hubscope("compare", "1", "2", "--lake", lake)
    assert result.exit_code == 0, result.output
    assert "version 1 (3 runs) against version 2 (3 runs)" in result.stdout
    found = json.loads(hubscope("compare", "1", "2", "--lake", lake, "--format", "json").stdout)
    assert found["comparisons"]
    assert {c["runs_before"] for c in found["comparisons"]} == {3}
    assert not any(c["verdict"] == "worse" for c in found["comparisons"])


def test_a_version_that_is_not_there_is_named(hubscope: Hubscope, lake: Path) -> None:
    """A version the lake does not hold is exit 4, and named."""
    result = hubscope("compare", "1", "3", "--lake", lake)
    assert result.exit_code == 4
    assert "'3'" in result.stderr or " 3" in result.stderr
    assert "Traceback" not in result.stderr
