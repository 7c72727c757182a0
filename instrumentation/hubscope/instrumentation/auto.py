"""What `hubscope run` makes the application's interpreter do before its first line."""

from __future__ import annotations

import os
import sys

from hubscope.instrumentation import settings
from hubscope.instrumentation.children import SITE_DIR, take_out
from hubscope.instrumentation.startup import process_start  # noqa: F401 - its import is the first clock reading


def start() -> None:
    """Set everything up. Never raises: what fails is said in one line on stderr and the application runs."""
    if not settings.is_true(settings.INSTRUMENT_CHILDREN):
        take_out(SITE_DIR, os.environ)
    if settings.disabled():
        return
    try:
        from hubscope.instrumentation.distro import HubscopeConfigurator, HubscopeDistro

        distro = HubscopeDistro()
        distro.configure()
        from opentelemetry.instrumentation.version import __version__

        from hubscope.instrumentation import from_code, setup
        from hubscope.instrumentation.startup import tracker

        HubscopeConfigurator().configure(auto_instrumentation_version=__version__)
        if setup.configured():
            from_code.load_instrumentors()
            started = tracker.current()
            if started is not None:
                started.set_up_again(ready=True)  # our phase of the start reaches to here
    except Exception as error:  # noqa: BLE001 - the application runs unmeasured
        print(f"hubscope: measuring is off, because the set-up failed: {error}", file=sys.stderr)
