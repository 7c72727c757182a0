"""The programs that the demo starts. Whatever happens, none of them outlives it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from hubscope.errors import LakeError

READY_DEADLINE_S: Final = 60.0  # a start takes 1 to 4 s here
STOP_DEADLINE_S: Final = 10.0  # an application sends its last telemetry within 3 s
POLL_S: Final = 0.02
_SAYS_WHERE: Final = re.compile(r"(?:listening|running) on (http://[\w.\[\]:]+)")


def environment(examples: Path, resource: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what would send the demo's telemetry elsewhere, and with the examples."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "HUBSCOPE_"))}
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (str(examples), kept.get("PYTHONPATH"))))
    kept["PYTHONUNBUFFERED"] = "1"
    if resource:
        kept["OTEL_RESOURCE_ATTRIBUTES"] = ",".join(f"{key}={value}" for key, value in resource.items())
    return kept


class Child:
    """A program in a session of its own: Ctrl-C in the terminal reaches the demo alone, which stops it in order."""

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                command, env=dict(env), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def url(self) -> str:
        """Waits until the program says where it listens. Raises LakeError with the end of its log if it does not."""
        deadline = time.monotonic() + READY_DEADLINE_S
        while True:
            hopeless = self.process.poll() is not None or time.monotonic() > deadline  # seen before the log is read
            found = _SAYS_WHERE.search(self.log.read_text("utf-8", errors="replace"))
            if found:
                return found[1]
            if hopeless:
                self.failed("does not answer")
            time.sleep(POLL_S)

    def wait(self) -> str:
        """Waits for a program that ends by itself; returns what it printed. Raises LakeError if it failed."""
        if self.process.wait() != 0:
            self.failed("failed")
        return self.log.read_text("utf-8", errors="replace")

    def stop(self) -> None:
        """Asks it to stop, waits, and raises LakeError if it had to be killed."""
        self.process.terminate()
        try:
            self.process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self.failed(f"did not stop within {STOP_DEADLINE_S:g} s")

    def kill(self) -> None:
        """Ends it and all that it started."""
        import psutil

        try:
            family = [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]
        except psutil.NoSuchProcess:
            family = []
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def failed(self, how: str) -> NoReturn:
        end = self.log.read_text("utf-8", errors="replace").splitlines()[-8:]
        raise LakeError(
            f"{self.name} {how}:\n" + "\n".join(f"  {line}" for line in end), f"its whole log is {self.log}"
        )


@contextmanager
def started(name: str, command: Sequence[str], env: Mapping[str, str], log: Path) -> Iterator[Child]:
    """A child for the length of the block; if it still runs at the end it is asked to stop, and then made to."""
    child = Child(name, command, env, log)
    try:
        yield child
    finally:
        if child.process.poll() is None:
            child.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(STOP_DEADLINE_S)
        if child.process.poll() is None:
            child.kill()


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does: by an exception, so that every block stops what it started."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = [(number, signal.signal(number, interrupt)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def hubscope(*arguments: str) -> list[str]:
    """The command line of a hubscope command in this interpreter."""
    return [sys.executable, "-m", "hubscope.console", *arguments]


def module(name: str, *arguments: str) -> list[str]:
    """The command line of an example's module in this interpreter."""
    return [sys.executable, "-m", name, *arguments]
