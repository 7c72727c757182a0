"""`hubscope import`: files into the lake."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hubscope.console.main import show_error
from hubscope.console.options import lake_option, rules_option
from hubscope.errors import EXIT_DONE, EXIT_UNREADABLE, BadInputError

if TYPE_CHECKING:
    from hubscope.collector.imports.import_files import Outcome

PROGRESS_AFTER_S = 2.0
PROGRESS_EVERY_S = 0.2


@click.command("import", short_help="Read OTLP and Jaeger files into the lake.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@lake_option
@rules_option
def command(paths: tuple[str, ...], lake: str, rules: str | None) -> int:
    """Read files into the lake: OTLP JSON lines as the stock Collector's file exporter writes them, its
    length-prefixed form, single OTLP JSON documents, and Jaeger JSON (API answer or UI download); each also compressed
    with zstd or gzip. `-` is stdin.

    Importing a file twice adds nothing, and of one that has grown only what is new is added, be it renamed or
    compressed meanwhile: a last line that was half-written counts when it is whole. An import that was interrupted, or
    killed, goes on where it stopped. What is known of a file stands in the lake's tables alone, so all of this holds
    for every machine that imports into the same lake, an object store too.

    A span that the lake has all the same, by its ids, kind and name, is not added either: what `hubscope trace
    --format otlp` printed, or a Jaeger gives back that it was forwarded to. Log records and data points have no ids:
    of two files that merely begin alike, and of an older, shorter copy of one that is there, they come in whole.

    Ids must have the length that OTLP gives them, 16 bytes for a trace and 8 for a span, or be empty; a message with
    any other is rejected whole.

    \b
    Example:
      hubscope import traces.json logs.json.zst
      curl -s 'http://localhost:16686/api/traces?service=shop' | hubscope import -

    Exit code 4 means that a file could not be read, or held nothing that could be taken.
    """
    from hubscope.collector.imports.import_files import import_file
    from hubscope.collector.private import keep_files_private
    from hubscope.processors.rules_file import load

    keep_files_private()
    loaded = load(rules)
    outcomes: list[Outcome] = []
    unreadable = False
    progress = Progress()
    try:
        for path in paths:
            if path == "-":
                with tempfile.NamedTemporaryFile(prefix="hubscope-import-") as kept:
                    shutil.copyfileobj(sys.stdin.buffer, kept)
                    kept.flush()
                    outcomes.append(import_file(Path(kept.name), lake, loaded, "stdin", progress))
            else:
                try:
                    outcomes.append(import_file(Path(path), lake, loaded, progress=progress))
                except BadInputError as error:  # the other files are read all the same
                    progress.clear()
                    show_error(str(error))
                    unreadable = True
                    continue
            progress.clear()
            _tell(outcomes[-1])
    except KeyboardInterrupt:
        progress.clear()
        click.echo("interrupted: the same command goes on where this one stopped", err=True)
        raise
    finally:
        progress.clear()
    unusable = unreadable or any(outcome.rejected and not outcome.accepted for outcome in outcomes)
    return EXIT_UNREADABLE if unusable else EXIT_DONE


def _tell(outcome: Outcome) -> None:
    known = outcome.accepted - outcome.written
    already = (
        ""
        if not known
        else ", all of them in the lake already"
        if not outcome.written
        else f", {known} in the lake already"
    )
    click.echo(f"{outcome.name}: {outcome.accepted} accepted{already}, {outcome.rejected} rejected")
    for reason in outcome.reasons:
        click.echo(f"  {reason}", err=True)
    if outcome.rejected > len(outcome.reasons):
        click.echo(f"  … and {outcome.rejected - len(outcome.reasons)} more", err=True)
    for remedy in outcome.remedies:
        click.echo(f"  → {remedy}", err=True)


class Progress:
    """A line on stderr that says how far it is, on a terminal, for what takes longer than two seconds."""

    def __init__(self) -> None:
        self._start_s = self._last_s = time.monotonic()
        self._shown = False
        self._on_terminal = sys.stderr.isatty()

    def __call__(self, what: str, done_bytes: int, total_bytes: int) -> None:
        now_s = time.monotonic()
        if not self._on_terminal or now_s - self._start_s < PROGRESS_AFTER_S or now_s - self._last_s < PROGRESS_EVERY_S:
            return
        self._last_s = now_s
        self._shown = True
        share = f" {100 * done_bytes / total_bytes:.0f} % of {total_bytes / 1e6:.1f} MB" if total_bytes else ""
        sys.stderr.write(f"\r\x1b[K{what}{share}")
        sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False
