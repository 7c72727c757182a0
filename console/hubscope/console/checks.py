"""What `hubscope doctor` looks at, first half: the installation and the environment. Each check is a plain function."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from hubscope.collector.configuration.addresses import Address
from hubscope.console.collector_link import listening
from hubscope.console.environment_values import values
from hubscope.errors import HubscopeError

OK, WARN, FAIL = "ok", "warn", "fail"


class Check(NamedTuple):
    """One finding. `state` is ok, warn (works, but not as one would want) or fail; `remedy` is empty where it is ok."""

    what: str
    state: str
    detail: str
    remedy: str = ""


def python() -> Iterator[Check]:
    """The interpreter is one that hubscope is tested on."""
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info < (3, 14):
        yield Check("python", OK, f"{version} at {sys.executable}")
    else:
        yield Check("python", FAIL, f"{version} at {sys.executable}", "hubscope runs on Python 3.11, 3.12 and 3.13")


def packages() -> Iterator[Check]:
    """Every requirement of hubscope and of each extra is there, in a version that fits."""
    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(text) for text in metadata.requires("hubscope") or ()]
        version = metadata.version("hubscope")
    except metadata.PackageNotFoundError:
        yield Check("hubscope", FAIL, "it is not installed as a package", "pip install hubscope")
        return
    yield from _group(f"hubscope {version}", "", [r for r in requirements if r.marker is None], "pip install hubscope")
    for extra in ("collector", "analytics", "console"):
        wanted = [
            r
            for r in requirements
            if r.marker is not None and r.marker.evaluate({"extra": extra}) and not r.marker.evaluate({"extra": ""})
        ]
        yield from _group(f"extra {extra}", extra, wanted, f"pip install 'hubscope[{extra}]'")


def _group(what: str, extra: str, requirements: Sequence[object], remedy: str) -> Iterator[Check]:
    missing, wrong = [], []
    for requirement in requirements:
        name, specifier = str(getattr(requirement, "name", "")), getattr(requirement, "specifier", None)
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if specifier is not None and not specifier.contains(found, prereleases=True):
            wrong.append(f"{name} {found} (wanted {specifier})")
    if wrong:
        yield Check(what, FAIL, f"versions that do not fit: {', '.join(wrong)}", f"{remedy} --upgrade")
    elif missing and (not extra or len(missing) < len(requirements)):
        yield Check(what, FAIL if not extra else WARN, f"missing: {', '.join(missing)}", remedy)
    elif missing:
        yield Check(what, WARN, "not installed", remedy)
    else:
        yield Check(what, OK, "complete")


def opentelemetry() -> Iterator[Check]:
    """The OpenTelemetry packages agree with each other: pip does not always see to it."""
    from packaging.requirements import Requirement

    conflicts = []
    installed = {(d.metadata["Name"] or "").lower(): d for d in metadata.distributions()}
    for name, distribution in sorted(installed.items()):
        if not name.startswith("opentelemetry"):
            continue
        for text in distribution.requires or ():
            requirement = Requirement(text)
            other = installed.get(requirement.name.lower())
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if applies and other is not None and not requirement.specifier.contains(other.version, prereleases=True):
                conflicts.append(f"{name} {distribution.version} wants {requirement}, {other.version} is installed")
    if conflicts:
        remedy = "pip install --upgrade " + " ".join(sorted({c.split()[0] for c in conflicts}))
        yield Check("opentelemetry", FAIL, "; ".join(conflicts), remedy)
    else:
        count = sum(name.startswith("opentelemetry") for name in installed)
        yield Check("opentelemetry", OK, f"{count} packages that agree")


ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
PROTOCOL: Final = "OTEL_EXPORTER_OTLP_PROTOCOL"
_SIGNALS: Final = ("TRACES", "METRICS", "LOGS")
_USUAL_PORT: Final = {"grpc": 4317, "http/protobuf": 4318, "http/json": 4318}


def environment(environ: Mapping[str, str] = os.environ) -> Iterator[Check]:
    """The variables that steer an application can be used, and do not contradict each other."""
    found = [
        *(Check(wrong.name, WARN if wrong.is_harmless else FAIL, *wrong[1:3]) for wrong in values(environ)),
        *_switched_off(environ),
        *_endpoints(environ),
        *_sampling(environ),
        *_resource(environ),
        *_our_names(environ),
        *_files(environ),
    ]
    yield from found or [Check("environment", OK, "nothing contradicts itself")]


def _switched_off(environ: Mapping[str, str]) -> Iterator[Check]:
    for name in ("OTEL_SDK_DISABLED", "HUBSCOPE_DISABLED"):
        if environ.get(name, "").strip().lower() in ("true", "1", "yes", "on"):
            yield Check(name, WARN, f"{name}={environ[name]} switches all measuring off", f"unset {name}")
    for signal in _SIGNALS:
        name = f"OTEL_{signal}_EXPORTER"
        value = environ.get(name, "")
        if value and "otlp" not in value and "hubscope" not in value:
            yield Check(name, WARN, f"{name}={value} sends no {signal.lower()} to a collector", f"unset {name}")
    distro = environ.get("OTEL_PYTHON_DISTRO")
    if distro and distro != "hubscope":
        remedy = "OTEL_PYTHON_DISTRO=hubscope, or `hubscope run`, which sets it"
        yield Check("OTEL_PYTHON_DISTRO", WARN, f"it names {distro}: hubscope's instrumentation stays off", remedy)


def _endpoints(environ: Mapping[str, str]) -> Iterator[Check]:
    for suffix in ("", *(f"{signal}_" for signal in _SIGNALS)):
        name = f"OTEL_EXPORTER_OTLP_{suffix}ENDPOINT"
        value = environ.get(name, "").strip()
        if not value:
            continue
        protocol = environ.get(f"OTEL_EXPORTER_OTLP_{suffix}PROTOCOL") or environ.get(PROTOCOL) or "grpc"
        yield from _endpoint(name, value, protocol.strip(), is_base=not suffix)


def _endpoint(name: str, value: str, protocol: str, is_base: bool) -> Iterator[Check]:
    try:
        url = urlsplit(value if "://" in value else f"//{value}")
        port = url.port or _USUAL_PORT.get(protocol, 4317)
    except ValueError as error:
        yield Check(name, FAIL, f"{value!r} is no URL: {error}", f"{name}=http://127.0.0.1:4317")
        return
    if protocol not in _USUAL_PORT:
        return  # `environment_values` says that it is none
    if "://" in value and url.scheme not in ("http", "https"):
        remedy = f"{name}=http://{value.partition('://')[2]}"
        yield Check(name, FAIL, f"{value!r} has the scheme {url.scheme}, and only http and https are known", remedy)
        return
    if "://" not in value and protocol != "grpc":
        yield Check(name, FAIL, f"{value!r} has no scheme, which {protocol} needs", f"{name}=http://{value}")
    other = next((p for p, usual in _USUAL_PORT.items() if usual == port and usual != _USUAL_PORT[protocol]), None)
    if other is not None:
        remedy = f"{PROTOCOL}={other}, or port {_USUAL_PORT[protocol]}"
        yield Check(name, FAIL, f"{value} is the usual port of {other}, and the protocol is {protocol}", remedy)
    if is_base and protocol != "grpc" and url.path.rstrip("/").endswith(("/v1/traces", "/v1/metrics", "/v1/logs")):
        remedy = f"{name}={value[: value.rindex('/v1/')]}"
        yield Check(name, FAIL, f"{value}: the exporter adds /v1/traces itself, so this path is asked twice", remedy)
    if not listening(Address(url.hostname or "127.0.0.1", port)):
        remedy = "start what should listen there (`hubscope collect`), or correct the address"
        yield Check(name, FAIL, f"nothing answers at {url.hostname}:{port}", remedy)


def _sampling(environ: Mapping[str, str]) -> Iterator[Check]:
    sampler = environ.get("OTEL_TRACES_SAMPLER", "")
    if sampler.endswith("always_off"):
        yield Check("OTEL_TRACES_SAMPLER", FAIL, f"{sampler} records no trace", "unset OTEL_TRACES_SAMPLER")
    elif "traceidratio" in sampler:
        ratio = environ.get("OTEL_TRACES_SAMPLER_ARG", "1")
        if ratio not in ("1", "1.0"):
            detail = f"only {ratio} of all traces are recorded: counts and time a day come out too low"
            yield Check("OTEL_TRACES_SAMPLER", WARN, detail, "unset OTEL_TRACES_SAMPLER while measuring")


def _resource(environ: Mapping[str, str]) -> Iterator[Check]:
    text = environ.get("OTEL_RESOURCE_ATTRIBUTES", "").strip()
    broken = [pair for pair in text.split(",") if pair.strip() and not pair.partition("=")[1]]
    if broken:
        detail = f"not KEY=VALUE: {', '.join(broken)}"
        yield Check(
            "OTEL_RESOURCE_ATTRIBUTES", FAIL, detail, "OTEL_RESOURCE_ATTRIBUTES=service.name=a,service.version=1"
        )


def known_variables() -> tuple[str, ...]:
    """Every HUBSCOPE_ variable that something reads."""
    from hubscope.environment import VARIABLES

    return tuple(variable.name for variable in VARIABLES)


def _our_names(environ: Mapping[str, str]) -> Iterator[Check]:
    known = known_variables()
    for name in sorted(environ):
        if name.startswith("HUBSCOPE_") and name not in known:
            near = get_close_matches(name, known, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"unset {name}"
            yield Check(name, WARN, "nothing reads this variable", remedy)


def _files(environ: Mapping[str, str]) -> Iterator[Check]:
    for name in ("HUBSCOPE_RULES", "HUBSCOPE_CONFIG"):
        value = environ.get(name)
        if value and not Path(value).is_file():
            yield Check(name, FAIL, f"there is no file {value}", f"correct {name}, or unset it")
        elif value and name == "HUBSCOPE_RULES":
            from hubscope.processors import rules_file

            try:
                rules_file.load(value)
            except HubscopeError as error:
                yield Check(name, FAIL, str(error), f"correct {value}")
