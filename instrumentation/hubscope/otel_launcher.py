"""Loaded by `opentelemetry-instrument` before it turns itself into the application, to take the time.

That command is one process with the application: it imports what it needs, reads its arguments, and replaces itself by
the application's interpreter. Without a mark in between its own run would count as the application's start (measured:
0.3 to 0.6 s). Its extension point for names of environment variables is the one place where it runs code of others; it
looks here for names that begin with OTEL_, and finds none. Nothing but the standard library is imported, and
nothing raises: that command does not expect it.
"""

from __future__ import annotations

import os
import sys
import time

# As in `settings`, whose package would be 30 times as dear to import.
_PROCESS_START = "HUBSCOPE_PROCESS_START"
_SAYS_OURS = {"hubscope", "--distro=hubscope"}  # as arguments: `--distro hubscope`

if os.environ.get("OTEL_PYTHON_DISTRO") == "hubscope" or not _SAYS_OURS.isdisjoint(sys.argv):
    os.environ.setdefault(_PROCESS_START, str(time.time_ns()))
