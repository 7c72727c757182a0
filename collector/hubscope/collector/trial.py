"""Finding the request that a segment fails on, in a process of its own, so that it may die of it.

The child is given ranges of a segment's records, decodes them, runs the processors and writes a scratch lake. The
parent halves a range that failed until single records are left: one bad record of a thousand costs ten tries.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Final

from hubscope.errors import HubscopeError, RetryableError
from hubscope.processors.options import ProcessorOptions, from_plain

ANSWER_TIMEOUT_S: Final = 120.0  # decoding 64 MiB takes 2 s
STOP_GRACE_S: Final = 2.0  # an idle child ends within 50 ms; one that hangs in a record does not
# Each death costs the start of a process, about a second. A segment with more killers than this is given up in ranges.
MAX_DEATHS: Final = 40
_SCRATCH: Final = "trial-"
_OK: Final = "ok"
_FAILED: Final = "failed "
_LATER: Final = "later "


def guilty_records(
    path: Path, count: int, state_dir: Path, rules_path: str | None, options: ProcessorOptions | None = None
) -> dict[int, str]:
    """Index -> reason of the records that fail or kill, of the `count` that the segment has.

    Raises RetryableError where the trial itself could not be made (a full disk).
    """
    guilty: dict[int, str] = {}
    deaths = 0
    arguments = [str(path), str(state_dir), json.dumps(asdict(options or ProcessorOptions()))]
    arguments += ["--rules", rules_path] if rules_path else []
    child = _Child(arguments)
    ranges = [(0, count)] if count else []
    try:
        while ranges:
            start, stop = ranges.pop()
            reason = child.answer(start, stop)
            if reason is None:
                continue
            if child.dead:
                deaths += 1
                child = _Child(arguments)
            if stop - start == 1 or deaths >= MAX_DEATHS:
                guilty.update(dict.fromkeys(range(start, stop), reason))
            else:
                middle = (start + stop) // 2
                ranges += [(middle, stop), (start, middle)]
    finally:
        child.stop()
    return guilty


def sweep(state_dir: Path) -> None:
    """Remove the scratch lakes of trials that were killed."""
    for scratch in state_dir.glob(f"{_SCRATCH}*"):
        shutil.rmtree(scratch, ignore_errors=True)


class _Child:
    """One trial process; it stays for many ranges until one kills it."""

    def __init__(self, arguments: list[str]) -> None:
        command = [sys.executable, "-m", "hubscope.collector.trial", *arguments]
        self.dead = False
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="trial-answers", daemon=True).start()

    def answer(self, start: int, stop: int) -> str | None:
        """Why the records failed, or None where they did not. `dead` says whether the process must be replaced."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # already dead: the queue says so
            self._process.stdin.write(f"{start} {stop}\n")
            self._process.stdin.flush()
        try:
            line = self._lines.get(timeout=ANSWER_TIMEOUT_S)
        except queue.Empty:
            self.stop()
            return f"took longer than {ANSWER_TIMEOUT_S:.0f} s"
        if line.startswith(_LATER):
            raise RetryableError(line.removeprefix(_LATER), "free some disk space and memory")
        if line.startswith(_FAILED):
            return line.removeprefix(_FAILED)
        if line == _OK:
            return None
        self.stop()
        code = self._process.returncode
        return (
            f"killed the process that tried it (signal {-code})" if code < 0 else f"ended its process with code {code}"
        )

    def stop(self) -> None:
        """End it: by the end of its input, which lets it remove its scratch lake, or by force."""
        self.dead = True
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put("")  # the end: it died


def main() -> int:
    """The child: ranges from stdin, an answer a line on stdout."""
    parser = argparse.ArgumentParser()
    parser.add_argument("segment", type=Path)
    parser.add_argument("state_dir", type=Path)
    parser.add_argument("options")
    parser.add_argument("--rules")
    arguments = parser.parse_args()
    from hubscope.collector.log.wal import DamagedSegmentError, Record, read_segment
    from hubscope.collector.segments import batch_despite
    from hubscope.exporters.lake import LakeExporter
    from hubscope.processors.pipeline import chain
    from hubscope.processors.rules_file import load

    records: list[Record] = []
    with contextlib.suppress(DamagedSegmentError):
        records.extend(read_segment(arguments.segment))
    rules, options = load(arguments.rules), from_plain(json.loads(arguments.options))
    with contextlib.ExitStack() as stack:
        try:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=arguments.state_dir))
            lake = LakeExporter(scratch, upkeep=False)
        except (HubscopeError, OSError) as error:  # a full disk: no record is to blame
            print(_later(error), flush=True)
            return 0
        for number, line in enumerate(sys.stdin, start=1):
            start, stop = map(int, line.split())
            try:
                batch, _ = batch_despite(number, records[start:stop], chain(rules, None, options))
                lake.export(batch)
                answer = _OK
            except (RetryableError, OSError) as error:
                answer = _later(error)
            except Exception as error:  # noqa: BLE001 - whatever a record makes the code raise is the answer
                answer = f"{_FAILED}{type(error).__name__}: {' '.join(str(error).split())[:1000]}"
            try:
                print(answer, flush=True)
            except BrokenPipeError:  # who asked was killed
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - or Python's exit would try to write it again
                break
    return 0


def _later(error: Exception) -> str:
    return f"{_LATER}{' '.join((error.message if isinstance(error, HubscopeError) else str(error)).split())}"


if __name__ == "__main__":
    sys.exit(main())
