"""The environment that `hubscope run` gives a command."""

from __future__ import annotations

import os

import pytest

from hubscope.errors import ConfigError
from hubscope.instrumentation.children import SITE_DIR, take_out
from hubscope.instrumentation.launch import prepare_environment, service_of
from hubscope.instrumentation.startup import process_start


@pytest.mark.parametrize(
    ("command", "service"),
    [
        (["datasette", "serve", "x.db"], "datasette"),
        (["/usr/bin/python3", "app/main.py", "--x"], "main"),
        (["python", "-X", "dev", "-m", "hub.server"], "hub.server"),
        (["python3.11", "-c", "pass"], "python3.11"),
        (["python"], "python"),
    ],
)
def test_a_service_is_named_after_its_command(command, service):
    """The script, module or program names the service."""
    assert service_of(command) == service


def test_what_is_set_and_what_is_kept():
    """Ours is added in front, the user's own stays, and the given environment is not changed."""
    given = {"PYTHONPATH": f"{SITE_DIR}{os.pathsep}/own", "OTEL_RESOURCE_ATTRIBUTES": "a=b", "X": "y"}
    made = prepare_environment(
        given, service="hub", version="2", endpoint="http://h:4318", command=["c"], now_unix_nano=7
    )
    assert given["PYTHONPATH"] == f"{SITE_DIR}{os.pathsep}/own"
    assert made["PYTHONPATH"] == f"{SITE_DIR}{os.pathsep}/own"
    assert made["OTEL_RESOURCE_ATTRIBUTES"] == "a=b,service.version=2"
    assert made["OTEL_EXPORTER_OTLP_PROTOCOL"] == "http/protobuf"
    assert (made["OTEL_SERVICE_NAME"], made["HUBSCOPE_PROCESS_START"], made["X"]) == ("hub", "7", "y")
    assert prepare_environment({}, endpoint="http://h:4317")["OTEL_EXPORTER_OTLP_PROTOCOL"] == "grpc"
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" not in prepare_environment({})


@pytest.mark.parametrize("endpoint", ["localhost:4317", "ftp://h", "http://", "nonsense"])
def test_an_endpoint_that_is_no_url_is_refused(endpoint):
    """The error names what was given and shows a right one."""
    with pytest.raises(ConfigError, match="expected a URL") as refused:
        prepare_environment({}, endpoint=endpoint)
    assert repr(endpoint) in str(refused.value)


def test_our_folder_is_taken_out_of_the_path():
    """Only our own entry goes; an empty path goes altogether."""
    environ = {"PYTHONPATH": os.pathsep.join([SITE_DIR, "/a", "/b"])}
    assert take_out(SITE_DIR, environ)
    assert environ == {"PYTHONPATH": os.pathsep.join(["/a", "/b"])}
    assert not take_out(SITE_DIR, environ)
    alone = {"PYTHONPATH": SITE_DIR}
    assert take_out(SITE_DIR, alone)
    assert alone == {}


def test_the_launcher_s_clock_is_taken_once_and_only_if_it_is_this_process_s():
    """A launcher's time is used and removed; one inherited from a grandparent, or from the future, is not believed."""
    own = process_start.find({})
    assert own.origin == "proc_stat"
    environ = {"HUBSCOPE_PROCESS_START": str(own.unix_nano + 1)}
    assert process_start.find(environ) == (own.unix_nano + 1, "launcher")
    assert environ == {}
    for wrong in (own.unix_nano - 60_000_000_000, process_start.LOADED_NS + 60_000_000_000, "soon"):
        assert process_start.find({"HUBSCOPE_PROCESS_START": str(wrong)}).origin == "proc_stat"


def test_without_the_kernel_s_record_psutil_says_it(monkeypatch):
    """Elsewhere than on Linux the origin is psutil, and where that fails too it is our own first instruction."""
    monkeypatch.setattr(process_start, "_proc_stat_ns", lambda: None)
    assert process_start.find({}).origin == "psutil"
    monkeypatch.setattr(process_start, "_psutil_ns", lambda: None)
    assert process_start.find({}) == (process_start.LOADED_NS, "sdk_load")
