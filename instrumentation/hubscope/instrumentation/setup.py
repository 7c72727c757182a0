"""Setting up the SDK and everything of ours around it: once a process, by the distro or from code (`from_code`)."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from hubscope import semconv
from hubscope.instrumentation import settings, signals
from hubscope.instrumentation.exporter_choice import chosen_in
from hubscope.instrumentation.hard_exit import keep_before_hard_exit
from hubscope.instrumentation.startup import tracker
from hubscope.instrumentation.terminate import send_before_sigterm  # before the SDK: its hooks at a fork come first

if TYPE_CHECKING:
    from hubscope.instrumentation.workers import Workers

_log = logging.getLogger("hubscope")
lock = threading.RLock()
_configured = False
_workers: Workers | None = None  # kept: multiprocessing knows it weakly

# What the distro says unless the user did. 5 s between metrics: a short run still has a few points.
DEFAULTS: tuple[tuple[str, str], ...] = (
    ("OTEL_TRACES_EXPORTER", "otlp"),
    ("OTEL_METRICS_EXPORTER", "otlp"),
    ("OTEL_LOGS_EXPORTER", "otlp"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
    # SIGKILL takes the spans of this time. A request a second instead of one in five costs 0.2 ms of CPU a second.
    ("OTEL_BSP_SCHEDULE_DELAY", "1000"),
    # The conventional buckets begin at 1 ms (as bounds in seconds even at 5 s): an in-process search falls into one.
    ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram"),
    # The stable HTTP names (v1.23 on). Without this word contrib instrumentations send those of before.
    ("OTEL_SEMCONV_STABILITY_OPT_IN", "http"),
    ("OTEL_PYTHON_CONFIGURATOR", "hubscope"),
)


def set_defaults(environ: MutableMapping[str, str]) -> None:
    """Fill in the standard variables that are not set, or are numbers that are none."""
    settings.drop_wrong_numbers(environ)
    for name, value in DEFAULTS:
        environ.setdefault(name, value)


def configured() -> bool:
    """Whether this process is set up."""
    return _configured


def configure_sdk(**kwargs: Any) -> bool:
    """Set up the providers with the stock configurator, then add ours. Whether anything is measured now.

    `kwargs` are those of the stock configurator. Under OTEL_CONFIG_FILE it takes none; ours are added after it.
    """
    global _configured
    with lock:
        if _configured:
            return True
        # Importing the SDK and getting a tracer add warning filters; they are not the application's.
        with warnings.catch_warnings():
            from opentelemetry import trace

            existing = trace.get_tracer_provider()
            if isinstance(existing, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
                if not _stock(kwargs):
                    return False
            else:
                _join_existing(existing)
            _configured = True
            _complete()
        return True


def _stock(kwargs: dict[str, Any]) -> bool:
    from inspect import signature

    from opentelemetry.sdk._configuration import _initialize_components, _OTelSDKConfigurator

    class _Stock(_OTelSDKConfigurator):  # its own docstring asks to subclass it
        pass

    if os.environ.get("OTEL_CONFIG_FILE"):
        kwargs = {}
    else:
        if (
            "export_span_processor" in signature(_initialize_components).parameters
        ):  # SDK 1.42 on; 1.40 has its own only
            kwargs["export_span_processor"] = _span_processor
        attributes = dict(kwargs.pop("resource_attributes", None) or {})
        fallback = os.environ.get(settings.SERVICE_FALLBACK, "").strip()
        if fallback and not service_named():
            attributes.setdefault(semconv.SERVICE_NAME, fallback)
        kwargs["resource_attributes"] = attributes
    try:
        stock: Any = _Stock
        with chosen_in(os.environ):
            stock().configure(**kwargs)
    except Exception as error:  # noqa: BLE001 - a wrong setting must not end the application
        _log.error("hubscope: measuring is off, because OpenTelemetry could not be set up: %s", error)
        _log.debug("the set-up failed", exc_info=True)
        return False
    return True


def _span_processor(span_exporter: Any, *args: Any, **kwargs: Any) -> Any:
    """The queue before an exporter: for ours our own, which costs a tenth; the SDK's for any other."""
    from hubscope.exporters.delivery.span_batches import SpanBatches, limits
    from hubscope.exporters.delivery.span_exporter import HubscopeSpanExporter

    if type(span_exporter) is HubscopeSpanExporter:
        return SpanBatches(span_exporter, limits(os.environ))
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(span_exporter, *args, **kwargs)


def _join_existing(provider: Any) -> None:
    """The application set a provider first: send to our collector from it as well."""
    from opentelemetry.sdk.trace import TracerProvider

    if not isinstance(provider, TracerProvider):
        _log.warning(
            "hubscope: the application's tracer provider is no OpenTelemetry SDK one (%s); not joined", type(provider)
        )
        return
    from opentelemetry.sdk import _configuration as stock

    with chosen_in(os.environ):
        exporters, _, _ = stock._import_exporters(stock._get_exporter_names("traces"), [], [])
        for exporter in exporters.values():
            provider.add_span_processor(_span_processor(exporter()))
        _set_up_the_others(stock, provider)


def _set_up_the_others(stock: Any, provider: Any) -> None:
    """Metrics and logs, where the application did not set up its own."""
    from opentelemetry import metrics

    if type(metrics.get_meter_provider()).__name__.startswith(("_Proxy", "NoOp")):
        _, metric_exporters, log_exporters = stock._import_exporters(
            [], stock._get_exporter_names("metrics"), stock._get_exporter_names("logs")
        )
        stock._init_metrics(metric_exporters, provider.resource)
        from opentelemetry._logs import get_logger_provider

        if type(get_logger_provider()).__name__.startswith(("Proxy", "NoOp")):
            stock._init_logging(log_exporters, provider.resource, setup_logging_handler=False)


def _complete() -> None:
    """What is ours: an instance id, a bounded exit, the start, the SDK form of the processors, joining."""
    from opentelemetry import metrics, trace
    from opentelemetry._logs import get_logger_provider

    from hubscope.exporters.otlp import bounded_exit, courier_of, exporters_of
    from hubscope.instrumentation import cache_watch, children, export_metrics
    from hubscope.instrumentation.join import watch_for_second
    from hubscope.instrumentation.span_watch import FirstRequest
    from hubscope.instrumentation.workers import Workers, start_afresh_in_children

    signals.forget()
    providers = (trace.get_tracer_provider(), metrics.get_meter_provider(), get_logger_provider())
    _give_instance_id(providers)
    exit_timeout_s = settings.positive_number(settings.EXIT_TIMEOUT_MS, settings.DEFAULT_EXIT_TIMEOUT_MS) / 1000
    leaving = bounded_exit(exit_timeout_s)
    for provider in providers:
        if hasattr(provider, "force_flush"):
            leaving.add(provider)

    def exporters() -> list[Any]:
        return [exporter for provider in providers for exporter in exporters_of(provider)]

    start_afresh_in_children(providers[1], exporters)
    _attach_processors(providers)
    cache_watch.flush_at_exit()
    handles = signals.handles()
    if handles is None:
        return
    export_metrics.observe(handles.meter, lambda: filter(None, map(courier_of, exporters())))
    started = tracker.begin(handles, children.take_parent(os.environ))
    resource = getattr(_resource_of(providers[0]), "attributes", {})
    instance = str(resource.get(semconv.SERVICE_INSTANCE_ID, ""))
    children.name_parent(os.environ, instance)

    def send_the_rest() -> None:
        started.settle()
        cache_watch.flush_all()
        leaving.close()

    def keep_the_rest() -> None:
        if os.getpid() == own_pid:
            started.settle()
            cache_watch.flush_all()
        leaving.keep()

    own_pid = os.getpid()
    keep_before_hard_exit(keep_the_rest)
    send_before_sigterm(send_the_rest, exit_timeout_s + 0.5)
    global _workers
    _workers = Workers(send_the_rest, exit_timeout_s + 0.5, exporters)
    ours: Any = providers[0]
    if hasattr(ours, "add_span_processor"):
        ours.add_span_processor(FirstRequest(started, handles.tracer, instance))
        watch_for_second(ours, leaving.add)


def _attach_processors(providers: tuple[Any, Any, Any]) -> None:
    """KPIs and quotas in the application itself, for those who send to a backend that derives none."""
    if not settings.is_true(settings.SDK_PROCESSORS):
        return
    try:
        from hubscope.processors import rules_file, sdk

        sdk.attach(*providers, rules_file.load())
    except Exception as error:  # noqa: BLE001 - KPIs are missing then, the spans are not
        _log.warning(
            "hubscope: %s is set, but the processors could not be attached: %s", settings.SDK_PROCESSORS, error
        )


def _give_instance_id(providers: tuple[Any, ...]) -> None:
    """SDKs before 1.44 set none. One id for all three signals; a forked child gets its own."""
    from uuid import uuid4

    from opentelemetry.sdk.resources import Resource

    lacking = [
        provider
        for provider in providers
        if hasattr(provider, "_update_resource")
        and semconv.SERVICE_INSTANCE_ID not in getattr(_resource_of(provider), "attributes", {})
    ]

    def give() -> None:
        resource = Resource({semconv.SERVICE_INSTANCE_ID: str(uuid4())})
        for provider in lacking:
            provider._update_resource(resource)

    if lacking:
        give()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=give)


def _resource_of(provider: Any) -> Any:
    config = getattr(provider, "_sdk_config", None)
    return getattr(config, "resource", None) or getattr(provider, "resource", None)


def service_named() -> bool:
    """Whether the environment says what the application is called."""
    attributes = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return bool(os.environ.get("OTEL_SERVICE_NAME", "").strip()) or f"{semconv.SERVICE_NAME}=" in attributes


def flush(timeout_s: float = 2.0) -> bool:
    """Send what is waiting; whether all of it was accepted within `timeout_s`. True when nothing is configured."""
    if not _configured:
        return True
    from time import monotonic

    from opentelemetry import metrics, trace
    from opentelemetry._logs import get_logger_provider

    from hubscope.instrumentation import cache_watch

    cache_watch.flush_all()
    deadline = monotonic() + timeout_s
    accepted = True
    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider(), get_logger_provider()):
        force_flush = getattr(provider, "force_flush", None)
        if force_flush is not None:
            accepted = bool(force_flush(max(1, int((deadline - monotonic()) * 1000)))) and accepted
    return accepted
