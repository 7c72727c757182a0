"""The documentation is true: the reference is what the sources say, links lead somewhere, snippets run.

In README.md and docs/*.md a fenced ```python block is compiled and run, all blocks of a page in order in one namespace
and one temporary directory; a ```sh block whose first line is `# checked` is run by `sh -e` in such a directory.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parents[2]
# Where a variable of ours may be read or set: the code, what is deployed, and what users copy.
SOURCES = (
    "instrumentation",
    "processors",
    "exporters",
    "collector",
    "analytics",
    "console",
    "examples",
    "deploy",
    "bench",
)
_FENCE = re.compile(r"^(?P<fence>```+)(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=fence)\s*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?(?P<target>[^)\s>]+)>?[^)]*\)")


def pages() -> list[Path]:
    return [path for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))) if path.is_file()]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def fences(path: Path, language: str) -> list[str]:
    found = _FENCE.finditer(path.read_text(encoding="utf-8"))
    return [block["body"] for block in found if block["language"] == language]


def with_python(path: Path) -> bool:
    return bool(fences(path, "python"))


def checked_shell(path: Path) -> list[str]:
    return [body for body in fences(path, "sh") if body.startswith("# checked\n")]


@pytest.fixture(scope="module")
def generate() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_sources_say() -> None:
    """`docs/generate.py --check` finds every page as it would write it."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_defence_names_a_test_that_is_there() -> None:
    """Each row under "What is defended" in docs/security.md names test files that exist, and functions in them."""
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = text.partition("## What is defended")[2].partition("## What is not")[0].splitlines()[4:]
    rows = [row for row in rows if row.startswith("| ")]
    assert len(rows) > 10
    for row in rows:
        file = ""
        shown = re.findall(r"`(test_\w+\.py)?(?:::(test_\w+))?`", row.rpartition(" | ")[2])
        assert shown, row
        for found, function in shown:
            file = found or file
            content = (ROOT / "tests" / "collector" / file).read_text(encoding="utf-8")
            assert not function or f"def {function}(" in content, f"{file}::{function}"


def test_a_stale_page_is_refused_with_the_difference(
    generate: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--check exits 1, names the page and shows what differs; without it the page is written."""
    monkeypatch.setattr(generate, "REFERENCE", tmp_path)
    monkeypatch.setattr(generate, "PAGES", (("errors.md", generate.errors),))
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    page = tmp_path / "errors.md"
    page.write_text(page.read_text().replace("interrupted", "gone"))
    assert generate.main(["--check"]) == 1
    told = capsys.readouterr().err
    assert "errors.md is stale" in told
    assert "-| 130 | gone |" in told


def test_a_command_without_help_is_refused(generate: types.ModuleType) -> None:
    """An undocumented command or option is named as a problem."""
    command = click.Command("bare", params=[click.Option(["--quiet"], is_flag=True)])
    problems: list[str] = []
    list(generate._command(command, "hubscope bare", None, problems))
    assert problems == ["hubscope bare: has no help", "hubscope bare --quiet: has no help"]


def test_every_environment_variable_is_listed_and_every_listed_one_is_read() -> None:
    """`environment.VARIABLES` and the source tree name the same HUBSCOPE_ variables."""
    from hubscope.environment import VARIABLES

    listed = [variable.name for variable in VARIABLES]
    assert len(listed) == len(set(listed))
    texts = {name(path): path.read_text(encoding="utf-8", errors="replace") for path in _source_files()}
    used: dict[str, str] = {}
    for where, text in texts.items():
        for found in re.findall(r"\bHUBSCOPE_[A-Z][A-Z0-9_]*[A-Z0-9]\b", text):
            used.setdefault(found, where)
    unlisted = {variable: where for variable, where in used.items() if variable not in listed}
    assert not unlisted, f"add them to instrumentation/hubscope/environment.py: {unlisted}"
    unread = [variable for variable in listed if not _is_read(variable, texts)]
    assert not unread, f"nothing reads them: {unread}"


def _is_read(variable: str, texts: dict[str, str]) -> bool:
    """Named by a source, other than only by the constant and the list of instrumentation/settings.py.

    `hubscope doctor` names variables to judge their values: that reads none of them.
    """
    settings = "instrumentation/hubscope/instrumentation/settings.py"
    judges = "console/hubscope/console/checks.py"
    if any(variable in text for where, text in texts.items() if where not in (settings, judges)):
        return True
    constant = re.search(rf'^(\w+): Final = "{variable}"', texts[settings], re.MULTILINE)
    if constant is None:
        return False
    uses = {where: len(re.findall(rf"\b{constant[1]}\b", text)) for where, text in texts.items()}
    return uses[settings] > 2 or any(count for where, count in uses.items() if where != settings)


def _source_files() -> Iterator[Path]:
    """All but the list itself, which proves nothing."""
    suffixes = {".py", ".toml", ".yaml", ".yml", ".service", ".sh", ".sql", ".ipynb"}
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in suffixes and path != ROOT / "instrumentation/hubscope/environment.py" and path.is_file():
                yield path


@pytest.mark.parametrize("path", pages(), ids=name)
def test_local_links_lead_somewhere(path: Path) -> None:
    """Every link to a file or heading of this repository resolves."""
    text = _FENCE.sub("", path.read_text(encoding="utf-8"))
    broken = []
    for found in _LINK.finditer(text):
        target, _, anchor = found["target"].partition("#")
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        file = (path.parent / target).resolve() if target else path
        known = file.exists() and (not anchor or file.suffix != ".md" or anchor in _anchors(file))
        if not known:
            broken.append(found["target"])
    assert not broken


def _anchors(path: Path) -> set[str]:
    """Headings as GitHub makes anchors of them."""
    text = _FENCE.sub("", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+\s+(.+?)\s*$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _environment(directory: Path) -> dict[str, str]:
    """A reader's shell: the programs of this environment first, nothing of ours or OpenTelemetry's set."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "HUBSCOPE_"))}
    scripts = str(Path(sys.executable).parent)
    return {**kept, "PATH": os.pathsep.join([scripts, kept.get("PATH", "")]), "HUBSCOPE_LAKE": str(directory / "lake")}


@pytest.mark.parametrize("path", [path for path in pages() if with_python(path)], ids=name)
def test_python_snippets_run(path: Path, tmp_path: Path) -> None:
    """All ```python blocks of a page, in order, in one process and an empty directory."""
    script = tmp_path / "snippets.py"
    script.write_text("\n".join(fences(path, "python")), encoding="utf-8")
    compile(script.read_text(encoding="utf-8"), name(path), "exec")
    done = subprocess.run(
        [sys.executable, script.name],
        cwd=tmp_path,
        env=_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", [path for path in pages() if checked_shell(path)], ids=name)
def test_checked_shell_snippets_run(path: Path, tmp_path: Path) -> None:
    """Every ```sh block that begins with `# checked` exits 0."""
    for body in checked_shell(path):
        done = subprocess.run(
            ["sh", "-e", "-c", body],
            cwd=tmp_path,
            env=_environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == 0, f"{body}\n{done.stdout}{done.stderr}"
