"""The distro and the configurator that `opentelemetry-instrument` finds by OTEL_PYTHON_DISTRO=hubscope."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined]  # untyped there

from hubscope.instrumentation import settings
from hubscope.instrumentation.startup import process_start  # noqa: F401 - its import is the first clock reading

_log = logging.getLogger("hubscope")

# Our own beside the contrib one of the same library: both would make a span of every statement.
_REPLACED = {"sqlite3": "hubscope_sqlite3"}


class HubscopeDistro(BaseDistro):  # type: ignore[misc]  # no type information
    """Defaults, and instrumentors that cannot bring each other down."""

    def _configure(self, **kwargs: Any) -> None:
        from hubscope.instrumentation.setup import set_defaults

        if settings.disabled():
            os.environ.setdefault("OTEL_PYTHON_CONFIGURATOR", "hubscope")  # ours, which does nothing then
            return
        set_defaults(os.environ)
        logging.getLogger("opentelemetry.instrumentation.auto_instrumentation._load").addFilter(_not_ours)

    def load_instrumentor(self, entry_point: Any, **kwargs: Any) -> None:
        """Load one; a failure is logged and the next one is loaded all the same."""
        if settings.disabled():
            return
        own = _REPLACED.get(entry_point.name)
        if own is not None and own not in _switched_off():
            _log.debug("instrumentation %s is left out: %s measures the same library", entry_point.name, own)
            return
        from hubscope.instrumentation.startup import tracker

        started = tracker.current()
        if started is not None:
            started.set_up_again(ready=False)
        try:
            with warnings.catch_warnings():
                super().load_instrumentor(entry_point, **kwargs)
        except ModuleNotFoundError as error:
            _log.debug("instrumentation %s: %s", entry_point.name, error)
        except Exception as error:  # noqa: BLE001 - the loader would stop at anything but an ImportError
            _log.warning(
                "hubscope: instrumentation %s failed, its library is not measured: %s", entry_point.name, error
            )
            _log.debug("instrumentation %s failed", entry_point.name, exc_info=True)
        finally:
            if started is not None:
                started.set_up_again(ready=True)


class HubscopeConfigurator:
    """Sets up the SDK as the stock configurator does, and adds what is ours."""

    def configure(self, **kwargs: Any) -> None:
        """Called by the loader with `auto_instrumentation_version`."""
        if settings.disabled():
            return
        from hubscope.instrumentation.setup import configure_sdk

        configure_sdk(**kwargs)
        from hubscope.instrumentation.children import spare_children

        spare_children()


def _switched_off() -> frozenset[str]:
    said = os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "")
    return frozenset(name.strip() for name in said.split(","))


def _not_ours(record: logging.LogRecord) -> bool:
    """False for the warning that another configurator was not loaded: ours was asked for."""
    return not str(record.msg).startswith("Configuration of %s not loaded")
