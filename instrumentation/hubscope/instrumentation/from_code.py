"""Switching hubscope on from code, for applications that no launcher prepared: `hub.configure()`."""

from __future__ import annotations

import logging
import os
from typing import Any

from hubscope import semconv
from hubscope.instrumentation import settings, setup

_log = logging.getLogger("hubscope")


def configure(service_name: str | None = None, service_version: str | None = None) -> None:
    """Switch hubscope on from code; does nothing more when the environment already did.

    The names given here hold unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say otherwise. A tracer provider
    that the application set before is joined. Never raises: a set-up that fails is logged and measuring stays off.
    """
    if settings.disabled():
        return
    with setup.lock:
        said = _unsaid_names(service_name, service_version)
        if setup.configured():
            _rename(said)
            return
        try:
            setup.set_defaults(os.environ)
            if setup.configure_sdk(resource_attributes=said):
                load_instrumentors()
        except Exception as error:  # noqa: BLE001 - never into the application
            _log.error("hubscope: measuring is off, because the set-up failed: %s", error)
            _log.debug("the set-up failed", exc_info=True)


def load_instrumentors() -> None:
    """Load every installed instrumentation through the distro, as `opentelemetry-instrument` does."""
    from opentelemetry.instrumentation.auto_instrumentation import _load

    from hubscope.instrumentation.distro import HubscopeDistro

    load: Any = _load._load_instrumentors
    load(HubscopeDistro())


def _unsaid_names(service_name: str | None, service_version: str | None) -> dict[str, str]:
    """The names given in code that the environment does not give."""
    said: dict[str, str] = {}
    if service_name and not setup.service_named():
        said[semconv.SERVICE_NAME] = service_name
    if service_version and f"{semconv.SERVICE_VERSION}=" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        said[semconv.SERVICE_VERSION] = service_version
    return said


def _rename(said: dict[str, str]) -> None:
    """The environment set everything up before the application could say its name: say it now, on all signals."""
    if not said:
        return
    from opentelemetry import metrics, trace
    from opentelemetry._logs import get_logger_provider
    from opentelemetry.sdk.resources import Resource

    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider(), get_logger_provider()):
        update = getattr(provider, "_update_resource", None)
        if update is not None:
            update(Resource(said))
