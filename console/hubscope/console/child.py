"""A command run as if the shell had run it: same terminal, same signals, same exit code."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from hubscope.errors import ConfigError

# What a terminal sends to its whole foreground group: the child has it already, a second one would be a second Ctrl-C.
_FROM_TERMINAL = ("SIGINT", "SIGQUIT")
_FORWARDED = ("SIGINT", "SIGQUIT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGCONT")


def find(command: Sequence[str]) -> str:
    """The program's path as the shell would find it. Raises ConfigError where there is none that can be run."""
    name = command[0]
    found = shutil.which(name)
    if found is not None:
        return found
    if os.path.dirname(name) and os.path.isdir(name):
        raise ConfigError(f"{name} is a folder, not a program", "name the program to run after `--`")
    if os.path.dirname(name) and os.path.exists(name):
        if name.endswith(".py"):
            remedy = f"run it by its interpreter: hubscope run -- python {name} …"
        else:
            remedy = "name a program, or the interpreter of a script: hubscope run -- python app.py"
        raise ConfigError(f"{name} is not an executable program", remedy)
    searched = "" if os.path.dirname(name) else " on PATH"
    raise ConfigError(f"there is no command {name!r}{searched}", "check the spelling of what stands after `--`")


def run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs it to its end; returns its exit code, or 128 + n where signal n ended it, as a shell does."""
    program = find(command)
    try:
        child = subprocess.Popen([program, *command[1:]], env=dict(environment))
    except OSError as error:
        raise ConfigError(
            f"{command[0]} cannot be run: {error.strerror or error}", "check that it is a program for this machine"
        ) from error
    with _forwarding(child):
        code = child.wait()
    return code if code >= 0 else 128 - code


@contextmanager
def _forwarding(child: subprocess.Popen[bytes]) -> Iterator[None]:
    def forward(number: int, frame: FrameType | None) -> None:
        if child.poll() is not None or (signal.Signals(number).name in _FROM_TERMINAL and _in_foreground()):
            return
        child.send_signal(number)

    before: dict[int, Any] = {}
    for name in _FORWARDED:
        number = getattr(signal, name, None)
        if number is not None and (os.name != "nt" or name == "SIGINT"):
            before[number] = signal.signal(number, forward)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    """Whether we are the terminal's foreground group, so that the child had the key press as well."""
    try:
        return os.name == "nt" or os.tcgetpgrp(sys.__stdin__.fileno() if sys.__stdin__ else 0) == os.getpgrp()
    except (OSError, ValueError):
        return False
