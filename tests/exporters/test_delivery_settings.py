"""What the environment says is read as the stock exporters read it: both are asked, for the same environments."""

from __future__ import annotations

import os
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.grpc import exporter as grpc_module
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from requests.utils import get_environ_proxies, select_proxy

from hubscope.errors import ConfigError
from hubscope.exporters.delivery.courier import courier
from hubscope.exporters.delivery.metric_exporter import HubscopeMetricExporter
from hubscope.exporters.delivery.proxies import proxy_of
from hubscope.exporters.delivery.settings import destination

PREFIX = "OTEL_EXPORTER_OTLP_"
HTTP: dict[str, type] = {"traces": HttpSpans, "metrics": HttpMetrics, "logs": HttpLogs}
GRPC: dict[str, type] = {"traces": GrpcSpans, "metrics": GrpcMetrics, "logs": GrpcLogs}
_COMMON = {
    "HEADERS": ["a=b", "A=b,c=d%20e", "x-token = s=e,,", "no header", "q=un quoted", ""],
    "TIMEOUT": ["3", "0.5", ""],
    "CERTIFICATE": ["/ca.pem", ""],
    "CLIENT_KEY": ["/key.pem", ""],
    "CLIENT_CERTIFICATE": ["/client.pem", ""],
}
_HTTP = {
    **_COMMON,
    "ENDPOINT": ["http://h:4318", "http://h:4318/", "https://h/x/", "https://u:p@h/y?z=1", ""],
    "COMPRESSION": ["gzip", " GZIP", "deflate", "none", "zstd", ""],
}
_GRPC = {
    **_COMMON,
    "ENDPOINT": ["http://h:4317", "https://h:4317/path", "h:4317", "http://[::1]:4317", "unix:///run/x"],
    "COMPRESSION": ["gzip", " GZIP "],
    "TIMEOUT": ["3", "0.5"],
    "INSECURE": ["true", "True", "false", "yes", ""],
}


def environments(choices: dict[str, list[str]]) -> st.SearchStrategy[dict[str, str]]:
    """Any of the variables, for one signal or for all."""
    return st.fixed_dictionaries(
        {},
        optional={
            f"{PREFIX}{scope}{what}": st.sampled_from(values)
            for what, values in choices.items()
            for scope in ("", "TRACES_", "METRICS_", "LOGS_")
        },
    )


@given(environments(_HTTP), st.sampled_from(sorted(HTTP)))
def test_http_settings_are_the_stock_ones(environ: dict[str, str], signal: Any) -> None:
    """Endpoint with its path, headers, timeout, compression and files, for one signal or for all."""
    with mock.patch.dict(os.environ, environ, clear=True):
        stock: Any = HTTP[signal]()
        ours = destination(signal, {**environ, f"{PREFIX}PROTOCOL": "http/protobuf"})
    assert ours.endpoint == stock._endpoint
    own = {"content-type", "user-agent", "Content-Encoding"}
    assert dict(ours.headers) == {k: v for k, v in stock._client._headers.items() if k not in own}
    assert ours.timeout_s == stock._client._timeout
    assert ours.compression == stock._client._compression.value
    session = stock._client._transport._session
    assert (ours.ca_file or True) == session.verify
    pair = (ours.cert_file, ours.key_file)
    assert (pair if all(pair) else ours.cert_file or None) == (session.cert or None)


@given(environments(_GRPC), st.sampled_from(sorted(GRPC)))
def test_grpc_settings_are_the_stock_ones(environ: dict[str, str], signal: Any) -> None:
    """Target, plain text or TLS, metadata, timeout, compression and files, for one signal or for all."""
    read: list[Any] = []
    with (
        mock.patch.dict(os.environ, environ, clear=True),
        mock.patch.object(grpc_module, "_load_credentials", lambda *files: read.append(files) or object()),
        mock.patch.object(grpc_module, "secure_channel"),
    ):
        stock: Any = GRPC[signal]()
        ours = destination(signal, {**environ, f"{PREFIX}PROTOCOL": "grpc"})
    assert (ours.endpoint, ours.insecure) == (stock._endpoint, stock._insecure)
    assert dict(ours.headers) == dict(stock._headers)
    assert ours.timeout_s == stock._timeout
    assert ours.compression == stock._compression.name.lower().replace("nocompression", "none")
    files = tuple(name or "" for name in read[-1]) if read and not stock._insecure else ("", "", "")
    assert (ours.ca_file, ours.key_file, ours.cert_file) == files


@given(st.sampled_from(["cumulative", "DELTA", " lowmemory ", "nonsense", None]), st.booleans())
def test_metric_preferences_are_the_stock_ones(temporality: str | None, exponential: bool) -> None:
    """Temporality and histogram aggregation, by kind of instrument."""
    environ = {} if temporality is None else {f"{PREFIX}METRICS_TEMPORALITY_PREFERENCE": temporality}
    if exponential:
        environ[f"{PREFIX}METRICS_DEFAULT_HISTOGRAM_AGGREGATION"] = "base2_exponential_bucket_histogram"
    with mock.patch.dict(os.environ, environ, clear=True):
        stock, ours = HttpMetrics(), HubscopeMetricExporter()
    assert ours._preferred_temporality == stock._preferred_temporality
    assert stock._preferred_aggregation is not None
    assert ours._preferred_aggregation is not None
    assert {k: type(v) for k, v in ours._preferred_aggregation.items()} == {
        k: type(v) for k, v in stock._preferred_aggregation.items()
    }


@pytest.mark.parametrize(
    ("name", "value", "protocol"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://h", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:port", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://h:99999", "grpc"),
    ],
)
def test_an_endpoint_that_is_none_is_named(name: str, value: str, protocol: str, caplog: Any) -> None:
    """The error names variable, value and remedy; an exporter says it once, refuses all and raises nothing."""
    environ = {name: value, f"{PREFIX}PROTOCOL": protocol}
    with pytest.raises(ConfigError) as refused:
        destination("traces", environ)
    assert name in str(refused.value)
    assert repr(value) in str(refused.value)
    with mock.patch.dict(os.environ, environ):
        made = courier("traces")
    assert name in caplog.text
    assert not made.deliver(b"\x0a\x00", 1)
    assert made.counts.refused == 1


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "using 10"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0", "using 10"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli", "gzip"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http", "grpc or http/protobuf"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "token=a%0d%0ab", "correct it"),
    ],
)
def test_another_wrong_value_is_named_and_its_default_holds(name: str, value: str, remedy: str, caplog: Any) -> None:
    """The log names the variable and what is done instead; the stock exporters end the set-up, or lose every batch."""
    found = destination("traces", {name: value})
    assert (found.timeout_s, found.compression, found.headers, found.protocol) == (10.0, "none", (), "grpc")
    assert name in caplog.text
    assert remedy in caplog.text


_PROXIES = st.sampled_from(["http://p:3128", "proxy.lan", "https://u:w@p", ""])


@given(
    st.sampled_from(
        ["http://h.example.org:4318/v1/traces", "https://10.1.2.3/x", "http://localhost:4318", "https://h"]
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "http_proxy": _PROXIES,
            "HTTPS_PROXY": _PROXIES,
            "all_proxy": _PROXIES,
            "no_proxy": st.lists(
                st.sampled_from(
                    ["*", "example.org", ".example.org", "h:443", "10.0.0.0/8", "10.1.2.3", "localhost", " "]
                ),
                max_size=2,
            ).map(",".join),
        },
    ),
)
def test_proxies_are_those_of_requests(url: str, environ: dict[str, str]) -> None:
    """`http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` mean what they mean to the stock exporter."""
    with mock.patch.dict(os.environ, environ, clear=True):
        stock = select_proxy(url, get_environ_proxies(url, no_proxy=None))
    ours = proxy_of(urlsplit(url), environ)
    assert (ours.geturl() if ours else None) == (
        requests.utils.prepend_scheme_if_needed(stock, "http") if stock else None
    )
