"""The environment in which `hubscope run` starts a command. Pure: nothing is started or changed here."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from hubscope.errors import ConfigError
from hubscope.instrumentation import settings
from hubscope.instrumentation.children import SITE_DIR

_INTERPRETERS = ("python", "pypy")


def prepare_environment(
    environ: Mapping[str, str],
    *,
    service: str | None = None,
    endpoint: str | None = None,
    protocol: str | None = None,
    command: Sequence[str] = (),
    version: str | None = None,
    now_unix_nano: int | None = None,
) -> dict[str, str]:
    """The variables for the child process, `environ` with ours added.

    `service` becomes OTEL_SERVICE_NAME; without it the name is taken from `command` and gives way to a name that the
    application says itself. `endpoint` is a collector's URL (http or https; port 4317 speaks gRPC, others HTTP, unless
    `protocol` says `grpc` or `http/protobuf`); without it the standard variables hold. `version` becomes
    service.version. Call it just before starting the process: it takes the launcher's clock.
    ConfigError for an endpoint that is no URL. A command that is not Python ignores all of it, and so does a Python
    told to ignore its environment (`-E`, `-I`). A Python program that only starts another one (`poetry run`) hands
    nothing on unless HUBSCOPE_INSTRUMENT_CHILDREN is set.
    """
    child = dict(environ)
    parts = [p for p in child.get("PYTHONPATH", "").split(os.pathsep) if p and os.path.abspath(p) != SITE_DIR]
    child["PYTHONPATH"] = os.pathsep.join([SITE_DIR, *parts])
    child["OTEL_PYTHON_DISTRO"] = "hubscope"
    child["OTEL_PYTHON_CONFIGURATOR"] = "hubscope"
    if service:
        child["OTEL_SERVICE_NAME"] = service
    elif command:
        child.setdefault(settings.SERVICE_FALLBACK, service_of(command))
    if version:
        said = child.get("OTEL_RESOURCE_ATTRIBUTES", "")
        child["OTEL_RESOURCE_ATTRIBUTES"] = ",".join(filter(None, (said, f"service.version={version}")))
    if endpoint:
        url = urlsplit(endpoint)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ConfigError(f"--collector: expected a URL as http://localhost:4318, got {endpoint!r}")
        chosen = protocol or ("grpc" if url.port == 4317 else "http/protobuf")
        child["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
        child["OTEL_EXPORTER_OTLP_PROTOCOL"] = chosen
    now = time.time_ns() if now_unix_nano is None else now_unix_nano
    child.pop(settings.PARENT, None)  # who starts it by hand starts an application
    child[settings.PROCESS_START] = str(now)
    return child


def service_of(command: Sequence[str]) -> str:
    """A service name from a command line: `datasette serve x.db` is datasette, `python -m hub.main` is hub.main."""
    name = _stem(command[0])
    rest = list(command[1:])
    if not name.startswith(_INTERPRETERS):
        return name
    while rest:
        argument = rest.pop(0)
        if argument == "-m" and rest:
            return rest[0]
        if argument == "-c":
            return name
        if argument in ("-W", "-X") and rest:
            rest.pop(0)
        elif not argument.startswith("-"):
            return _stem(argument)
    return name


def _stem(path: str) -> str:
    name, suffix = os.path.splitext(os.path.basename(path))
    return name if suffix in (".py", ".pyw", ".pyz", ".exe") else name + suffix  # python3.11 keeps its version
