"""The reference hub does what it says, in both versions, over real HTTP and a real database."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from reference_hub import corpus, flags, hooks, load, memory_store, personas, startup, tasks
from reference_hub.embedding import DIMENSIONS, embed
from reference_hub.flags import Flags
from reference_hub.memory_store import MemoryStore
from reference_hub.plugins.duplicates import NearDuplicates
from reference_hub.prepare import is_prepared, stamp
from reference_hub.vector_index import VectorIndex

QUESTION = "How do I parse a date string with a time zone?"


def environment(examples: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "HUBSCOPE_"))}
    return {**clean, "PYTHONPATH": str(examples), "PYTHONUNBUFFERED": "1"}


@contextmanager
def serving(examples: Path, data: Path, *arguments: str) -> Iterator[str]:
    """The hub as a process of its own, stopped by SIGTERM; gives its URL."""
    log = data / "hub.log"
    command = [sys.executable, "-m", "reference_hub", "--data", str(data), "--port", "0", *arguments]
    with open(log, "wb") as output:
        process = subprocess.Popen(command, env=environment(examples), stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 60
        found = None
        while found is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            found = re.search(r"listening on (http://\S+)", log.read_text())
        yield found[1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def ask(url: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    request = urllib.request.Request(url + path, None if body is None else json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def statements(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts every statement that SQLite runs from now on, by its text with the parameters left open."""
    seen: Counter[str] = Counter()
    connect = sqlite3.connect

    def counting(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(lambda text: seen.update([re.sub(r"\b\d+(\.\d+)?\b", "?", text)]))
        return connection

    monkeypatch.setattr(sqlite3, "connect", counting)
    return seen


@contextmanager
def application(data: Path, chosen: Flags) -> Iterator[tasks.Application]:
    app = startup.start(data, chosen)
    try:
        yield app
    finally:
        app.store.close()


@pytest.mark.parametrize("preset", ["1", "2"])
def test_both_versions_answer_over_http(preset: str, examples: Path, data: Path) -> None:
    """Either version answers every kind of request, refuses wrong ones with a reason, and stops when told to."""
    with serving(examples, data, "--version-preset", preset) as url:
        assert ask(url, "/healthz") == (200, {"status": "ok"})
        status, answer = ask(url, "/ask", {"persona": "grace", "question": QUESTION})
        assert status == 200
        assert len(answer["memories"]) == tasks.QUOTED
        assert answer["notes"]["citations"]
        status, page = ask(url, "/memories?persona=grace&kind=function")
        assert status == 200
        assert 0 < len(page["memories"]) <= memory_store.PAGE_SIZE <= page["total"] + memory_store.PAGE_SIZE
        weights = [line["importance"] for line in page["memories"]]
        assert weights == sorted(weights, reverse=True)
        note = "the zyzzyva parser wants its quokkas in long form"
        status, added = ask(url, "/memories", {"persona": "ada", "text": note})
        assert status == 200
        status, answer = ask(url, "/ask", {"persona": "ada", "question": "zyzzyva quokkas parser"})
        assert status == 200
        assert note in answer["answer"]
        assert ask(url, "/rating", {"rating": 0.9, "task": "answer_question"}) == (200, {})
        assert added["id"] == 1_501
        for path, body in (
            ("/ask", {"persona": "nobody", "question": QUESTION}),
            ("/ask", {"persona": "ada", "question": " "}),
            ("/memories", {"persona": "ada", "text": "two words"}),
            ("/memories?persona=ada&kind=poem", None),
            ("/memories?persona=ada&kind=class&page=-1", None),
            ("/rating", {"rating": 7}),
        ):
            status, refused = ask(url, path, body)
            assert status == 400, path
            assert refused["error"], path
        assert ask(url, "/nowhere")[0] == 404


def test_the_load_is_the_same_for_the_same_seed_and_succeeds(examples: Path, data: Path) -> None:
    """The users do the same in the same order for one seed, and the hub answers all of it."""
    people = ["ada", "grace", "radia", "linus"]
    todo = load.requests(people, 3, 3, 2, seed=5)
    assert todo == load.requests(people, 3, 3, 2, seed=5)
    assert todo != load.requests(people, 3, 3, 2, seed=6)
    with serving(examples, data) as url:
        done = load.drive(url, todo)
    assert done["failures"] == []
    assert done["requests"] == 8


def test_n_plus_one_asks_once_for_each_memory(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the flag an answer takes one query of the same shape for each candidate, without it one in all."""
    counts = {}
    answers = {}
    for chosen in (Flags(n_plus_one=True), Flags()):
        with application(data, chosen) as app:
            with monkeypatch.context() as patch:
                seen = statements(patch)
                answers[chosen.n_plus_one] = tasks.answer_question(app, app.personas["grace"], QUESTION).memories
            counts[chosen.n_plus_one] = sum(n for text, n in seen.items() if "json_group_array" in text)
    assert counts == {True: tasks.CANDIDATES, False: 1}
    assert answers[True] == answers[False]


def test_without_the_index_a_page_reads_the_whole_table(data: Path) -> None:
    """SQLite's own plan leaves out the index with the flag and uses it in all three steps without it, and back."""
    values = {"persona": "linus", "kind": "method", "limit": 50, "offset": 0}
    for no_index in (True, False, True):
        with application(data, Flags(no_index=no_index)) as app, app.store.connection() as connection:
            plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + memory_store.BROWSE, values)]
            pages = [app.store.browse("linus", "method", page) for page in (1, 2)]
        steps = [step for step in plan if "memories" in step]
        assert len(steps) == 3
        # Where the index is missing SQLite may build one for a subquery each time: that reads the table all the same.
        assert sum(memory_store.BROWSE_INDEX in step for step in steps) == (0 if no_index else 3), plan
        assert plan[0].startswith("SCAN") is no_index, plan
        assert pages[0].total == pages[1].total
        assert not {line.id for line in pages[0].lines} & {line.id for line in pages[1].lines}


def test_the_eager_import_is_the_only_reason_for_scipy(examples: Path, data: Path) -> None:
    """A start loads scipy.stats with the flag and nothing of scipy without it; the statistics page works in both."""
    program = (
        "import sys; from pathlib import Path\n"
        "from reference_hub import startup, tasks; from reference_hub.flags import Flags\n"
        f"app = startup.start(Path({str(data)!r}), Flags(eager_import=sys.argv[1] == 'eager'))\n"
        "at_start = 'scipy.stats' in sys.modules, any(name.startswith('scipy') for name in sys.modules)\n"
        "figures = tasks.memory_statistics(app, app.personas['linus'])\n"
        "print(at_start, figures['memories'] > 20)"
    )
    for argument, expected in (("eager", "(True, True) True"), ("lazy", "(False, False) True")):
        run = subprocess.run(
            [sys.executable, "-c", program, argument],
            env=environment(examples),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert run.stdout.strip() == expected, run.stderr


def test_the_slow_plugin_compares_letters_and_finds_what_words_find(data: Path) -> None:
    """Both ways drop a text that stands twice and keep different ones; only the flag compares letter by letter."""
    with application(data, Flags(slow_plugin=True)) as slow, application(data, Flags()) as fast:
        memories = fast.store.memories(range(1, 13))
        again = fast.store.memories([3])[0].__class__(**{**vars(memories[2]), "id": 99_999})
        for app, letters in ((slow, True), (fast, False)):
            plugin = app.plugins.get_plugin("near-duplicates")
            assert isinstance(plugin, NearDuplicates)
            assert plugin.letter_by_letter is letters
            dropped = plugin.enrich(QUESTION, [*memories, again]).drop
            assert 99_999 in dropped
            assert len(dropped) < len(memories)


def test_a_small_cache_forgets_what_a_large_one_keeps(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking the same again loads profiles again with the flag and none without it."""
    loads = {}
    for chosen in (Flags(small_cache=True), Flags()):
        with application(data, chosen) as app:
            tasks.answer_question(app, app.personas["ada"], QUESTION)
            assert len(app.profiles) <= app.profiles.capacity
            with monkeypatch.context() as patch:
                seen = statements(patch)
                tasks.answer_question(app, app.personas["ada"], QUESTION)
            loads[chosen.small_cache] = sum(n for text, n in seen.items() if text.startswith("SELECT vector"))
    assert loads[True] > 6
    assert loads[False] == 0


def test_presets_switch_all_or_nothing_and_flags_add() -> None:
    """Version 1 has the five flags, version 2 none, and one flag more can be given."""
    assert len(flags.PRESETS["1"].names()) == 5 == len(flags.MEANING)
    assert flags.PRESETS["2"].names() == ()
    import argparse

    parser = argparse.ArgumentParser()
    flags.add_arguments(parser)
    chosen = flags.from_arguments(parser.parse_args(["--no-index"]))
    assert chosen.names() == ("--no-index",)


def test_a_memory_survives_a_restart_and_is_found(data: Path) -> None:
    """What was added is in the database and enters the index again at the next start."""
    with application(data, Flags()) as app:
        id = tasks.add_memory(app, app.personas["radia"], "wombats answer before the socket is open")
    with application(data, Flags()) as app:
        assert id in app.index.nearest(embed("wombats socket answer"), 5)


def test_start_without_data_names_the_command_that_makes_it(examples: Path, tmp_path: Path) -> None:
    """An empty folder, a broken personas file: one line, exit code 2, no traceback."""
    broken = tmp_path / "personas.toml"
    broken.write_text("[[persona]]\nid = 3\n")
    for arguments, expected in (
        (["-m", "reference_hub", "--data", str(tmp_path)], "reference_hub.prepare"),
        (
            ["-m", "reference_hub.prepare", "--data", str(tmp_path / "d"), "--personas", str(broken)],
            "persona 1: id, name",
        ),
    ):
        run = subprocess.run(
            [sys.executable, *arguments], env=environment(examples), capture_output=True, text=True, timeout=60
        )
        assert run.returncode == 2
        assert expected in run.stderr
        assert "Traceback" not in run.stderr


def test_prepared_data_is_used_again_only_for_the_same_wish(prepared: Path) -> None:
    """A second preparation finds what is there; another number of memories makes it anew."""
    assert is_prepared(prepared, stamp(1_500, personas.DEFAULT_FILE))
    assert not is_prepared(prepared, stamp(1_501, personas.DEFAULT_FILE))
    store = MemoryStore(prepared / memory_store.FILE)
    assert store.last_id() == 1_500
    store.close()


def test_docstrings_are_read_without_importing(tmp_path: Path) -> None:
    """Every kind is found under its dotted name, short ones are left out, and a broken file gives none."""
    long = "It says more than forty characters, so that it is worth remembering."
    module = tmp_path / "package" / "__init__.py"
    module.parent.mkdir()
    module.write_text(
        f'"""Module. {long}"""\nraise RuntimeError\nclass A:\n    """Class. {long}"""\n    def m(self):\n'
        f'        """Method. {long}"""\n    def s(self):\n        """Short."""\ndef f():\n    """Function. {long}"""\n'
    )
    found = corpus.docstrings_of("package/__init__.py", module)
    assert [(d.package, d.module, d.name, d.kind) for d in found] == [
        ("package", "package", "", "module"),
        ("package", "package", "A", "class"),
        ("package", "package", "A.m", "method"),
        ("package", "package", "f", "function"),
    ]
    module.write_text("def broken(:\n")
    assert corpus.docstrings_of("package/__init__.py", module) == []


def test_the_corpus_is_the_same_each_time() -> None:
    """The same environment gives the same texts in the same order, each once, with one process or two."""
    one = corpus.collect(300, processes=1)
    assert one == corpus.collect(300, processes=2)
    assert len({docstring.text for docstring in one}) == 300


def test_embeddings_are_near_for_shared_words() -> None:
    """Vectors have 1536 dimensions and length 1, and a text is nearer to one that shares its words."""
    text, near, far = map(embed, ("parse a date string", "a string that holds a date", "draw a progress bar"))
    assert text.shape == (DIMENSIONS,)
    assert float(text @ text) == pytest.approx(1.0, abs=1e-5)
    assert float(text @ near) > float(text @ far)
    assert float(embed("") @ embed("")) == 0.0


def test_an_index_of_other_dimensions_is_refused(tmp_path: Path) -> None:
    """A file that is not the hub's index is an error that names it."""
    with pytest.raises(ValueError, match="not a saved index"):
        VectorIndex.load(tmp_path / "none")


def test_plugins_are_loaded_under_their_names() -> None:
    """Five plugins, each blamed by its own name."""
    manager = hooks.load(Flags())
    assert {name for name, _ in manager.list_name_plugin()} == {
        *("citations", "glossary", "ask-back", "near-duplicates", "guard")
    }


def test_the_hubs_rules_are_rules(examples: Path) -> None:
    """hubscope reads the hub's quota: 50 ms for a standard plugin's call, and the packaged rest stays."""
    from hubscope.processors.rules_file import load as load_rules

    quota = load_rules(str(examples / "reference_hub" / "rules.toml")).quota("execution", "near-duplicates", "", None)
    assert quota is not None
    assert quota.limit == pytest.approx(0.05)
