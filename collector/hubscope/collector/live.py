"""The settings of a running front: replaced as a whole by a reload, read anew for every request."""

from __future__ import annotations

from hubscope.collector.configuration.settings import CollectorSettings


class Live:
    """Holds the settings that count now. Who needs `settings` reads them when it needs them, and keeps none."""

    def __init__(self, settings: CollectorSettings) -> None:
        self.settings = settings
        self.stopping = False  # /healthz says so
