"""How one configuration value is read from what a flag, YAML or TOML gives.

Each function takes the raw value and returns the typed one, or raises ValueError with what it must be and what was got.
Numbers and booleans may come as text, because `${env:NAME}` always does.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
import socket
from collections.abc import Callable
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from hubscope.collector.configuration.addresses import Address
from hubscope.collector.configuration.variables import Scalar
from hubscope.processors.options import ACTIONS

MIB_BYTES: Final = 1024 * 1024

_SIZES: Final = {
    "": 1, "B": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip
_DURATIONS_S: Final = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_MAX_DURATION_S: Final = 36_500 * 86_400.0
_NUMBER_AND_UNIT: Final = re.compile(r"\s*([+-]?\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")

# What HTTP and gRPC both take; gRPC raises on anything else with every request.
_HEADER_NAME: Final = re.compile(r"[a-z0-9_.-]+")
_HEADER_VALUE: Final = re.compile(r"[ -~]*")

_ENGINE: Final = re.compile(r"[A-Za-z]*MergeTree(\([^()]*\))?")

T = TypeVar("T")


def shown(value: Any) -> str:
    """A value as an error quotes it: short, whatever was given."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def text(value: Any) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"must be a text, got {shown(value)}")
    return str(value)


def texts(value: Any) -> tuple[str, ...]:
    """One text, or a list of them."""
    return tuple(text(v) for v in value) if isinstance(value, list) else (text(value),)


def path(value: Any) -> str:
    """A path, made absolute."""
    return os.path.abspath(os.path.expanduser(text(value)))


def existing_file(value: Any) -> str:
    """The absolute path of a file that can be read."""
    found = path(value)
    if not os.path.isfile(found):
        raise ValueError(f"there is no file {found}")
    if not os.access(found, os.R_OK):
        raise ValueError(f"{found} cannot be read by this user")
    return found


_TOKEN: Final = re.compile(r"[!-~]+")  # what an Authorization header carries whole


def tokens(value: Any) -> tuple[str, ...]:
    """Bearer tokens: one, or a list. Never quoted in an error."""
    given = value if isinstance(value, list) else [value]
    if not given or not all(isinstance(v, str) and _TOKEN.fullmatch(v) for v in given):
        raise ValueError("each token must be a text of printable ASCII characters without spaces")
    return tuple(str(v) for v in given)


def token_file(value: Any) -> tuple[str, ...]:
    """The tokens in a file, one a line; `#` begins a comment line."""
    found = existing_file(value)
    with open(found, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file]
    given = [line for line in lines if line and not line.startswith("#")]
    if not given:
        raise ValueError(f"{found} holds no token; write one a line")
    try:
        return tokens(given)
    except ValueError as error:
        raise ValueError(f"{found}: {error}") from None


def origins(value: Any) -> tuple[str, ...]:
    """Browsers' origins, such as http://localhost:3000; or `*`."""
    found = texts(value)
    for origin in found:
        parts = urlsplit(origin)
        if origin != "*" and (not parts.scheme or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}"):
            raise ValueError(f"must be origins such as http://localhost:3000, without a path, got {shown(origin)}")
    return found


def log_format(value: Any) -> str:
    """text or json."""
    return _one_of(value, ("text", "json"))


def log_level(value: Any) -> str:
    """debug, info, warning or error."""
    return _one_of(value, ("debug", "info", "warning", "error"))


def _one_of(value: Any, known: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value.lower() not in known:
        raise ValueError(f"must be {', '.join(known[:-1])} or {known[-1]}, got {shown(value)}")
    return value.lower()


def boolean(value: Any) -> bool:
    """true or false."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, got {shown(value)}")
    return value


def redaction_action(value: Any) -> str:
    """mask, hash or drop."""
    if value not in ACTIONS:
        raise ValueError(f"must be one of {', '.join(ACTIONS)}, got {shown(value)}")
    return str(value)


def whole_number(value: Any) -> int:
    """A number >= 0."""
    number, unit = _number_and_unit(value, "a whole number")
    if unit or number < 0 or number != int(number):
        raise ValueError(f"must be a whole number >= 0, got {shown(value)}")
    return int(number)


def positive_number(value: Any) -> int:
    """A whole number of at least one."""
    number = whole_number(value)
    if not number:
        raise ValueError(f"must be > 0, got {shown(value)}")
    return number


def ratio(value: Any) -> float:
    """A share, 0 to 1."""
    number, unit = _number_and_unit(value, "a share from 0 to 1")
    if unit or not 0 <= number <= 1:
        raise ValueError(f"must be a share from 0 to 1, got {shown(value)}")
    return number


def percentile(value: Any) -> float:
    """0 (off), or 50 to below 100."""
    number, unit = _number_and_unit(value, "a percentile such as 95 or 99")
    if unit or (number and not 50 <= number < 100):
        raise ValueError(f"must be 0, or a percentile from 50 to below 100, got {shown(value)}")
    return number


def expressions(value: Any) -> tuple[str, ...]:
    """Regular expressions that Python and RE2 both read, and that do not match the empty text."""
    found = texts(value)
    import pyarrow as pa  # not before it is needed: the supervisor and the front go without
    import pyarrow.compute as pc

    for expression in found:
        try:
            matches_nothing = re.compile(expression).search("")
            pc.match_substring_regex(pa.array([""]), expression)
        except (re.error, pa.ArrowInvalid) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{shown(expression)} is not a regular expression of RE2: {reason}") from None
        if matches_nothing:
            raise ValueError(f"{shown(expression)} matches the empty text; it would be found everywhere")
    return found


def attributes(value: Any) -> tuple[tuple[str, str], ...]:
    """A table of attribute keys to texts."""
    if not isinstance(value, dict):
        raise ValueError(f"must be a table of attributes and texts, got {shown(value)}")
    pairs: list[tuple[str, str]] = []
    for name, content in value.items():
        if not str(name).strip() or not isinstance(content, str) or not content:
            raise ValueError(f"{name}: must be a text, got {shown(content)}; write a dotted key in quotes")
        pairs.append((str(name), content))
    return tuple(pairs)


def one_of(*known: str) -> Callable[[Any], str]:
    """A reader of one of these texts."""

    def read(value: Any) -> str:
        if value not in known:
            raise ValueError(f"must be one of {', '.join(known)}, got {shown(value)}")
        return str(value)

    return read


def address(value: Any) -> Address:
    """HOST:PORT; a host alone is refused, a port alone means loopback. IPv6 in brackets."""
    wanted = "must be HOST:PORT, such as 127.0.0.1:4317"
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"{wanted}, got {shown(value)}")
    host, colon, port = value.strip().rpartition(":")
    if not colon and port.isdigit():
        host = "127.0.0.1"
    host = host or ("127.0.0.1" if value.strip().startswith(":") else "")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{wanted}; an IPv6 address stands in brackets, [::1]:4317; got {shown(value)}")
    if not host or not port.isascii() or not port.isdigit() or any(c in host for c in "/ @"):
        raise ValueError(f"{wanted}, got {shown(value)}")
    if int(port) > 65535:
        raise ValueError(f"the port must be 0 to 65535, got {port}")
    return Address("127.0.0.1" if host == "localhost" else host, int(port))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reaches(host: str, listening: str) -> bool:
    """Whether a connection to `host`, made on this machine, comes to what listens on `listening` here.

    Nothing is looked up: of names only `localhost` and the machine's own are known.
    """
    targets = _addresses(host)
    if listening in ("", *_WILDCARDS):  # every address of this machine
        return any(target in _WILDCARDS or is_loopback(target) for target in targets) or bool(
            targets & _own_addresses()
        )
    return bool(targets & _addresses(listening))


_WILDCARDS: Final = ("0.0.0.0", "::")
_LOOPBACK: Final = frozenset(("127.0.0.1", "::1"))


def _addresses(host: str) -> frozenset[str]:
    """The IP addresses that a host means; the name itself where only a look-up could tell."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost") or name in _WILDCARDS:
        return _LOOPBACK  # to connect to a wildcard address is to connect to loopback
    if name == socket.gethostname().lower():
        return _own_addresses()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return frozenset((name,))
    mapped = getattr(address, "ipv4_mapped", None)
    return frozenset((str(mapped or address),))


def _own_addresses() -> frozenset[str]:
    """Of this machine's interfaces, without the zones of link-local ones."""
    import psutil

    found = (entry.address for entries in psutil.net_if_addrs().values() for entry in entries)
    return frozenset(address.partition("%")[0] for address in found)


def size(value: Any) -> int:
    """Bytes, from a number or a text such as `64 MiB`."""
    number, unit = _number_and_unit(value, "a size such as 64 MiB")
    if unit.upper() not in _SIZES:
        raise ValueError(
            f"must be a size such as 64 MiB, got the unit {unit!r}; known are B, KB, MB, GB, KiB, MiB, GiB"
        )
    size_bytes = int(number * _SIZES[unit.upper()])
    if size_bytes < 0:
        raise ValueError(f"must be >= 0 B, got {shown(value)}")
    return size_bytes


def positive_size(value: Any) -> int:
    """A size of at least one byte."""
    size_bytes = size(value)
    if not size_bytes:
        raise ValueError(f"must be > 0 B, got {shown(value)}")
    return size_bytes


def duration(value: Any) -> float:
    """Seconds, from a number or a text such as `500ms`."""
    number, unit = _number_and_unit(value, "a duration such as 500ms or 2s")
    if unit not in _DURATIONS_S:
        raise ValueError(f"must be a duration such as 500ms or 2s, got the unit {unit!r}; known are ms, s, m, h, d")
    if number < 0:
        raise ValueError(f"must be >= 0 s, got {value}")
    if number * _DURATIONS_S[unit] > _MAX_DURATION_S:  # no calendar reaches back 800,000 days
        raise ValueError(f"must be at most 36500d (100 years), got {value}; 0 is for ever where a key says so")
    return number * _DURATIONS_S[unit]


def positive_duration(value: Any) -> float:
    """A duration above 0."""
    number, _ = _number_and_unit(value, "a duration such as 500ms or 2s")
    if number <= 0:
        raise ValueError(f"must be > 0 s, got {value}")
    return duration(value)


def place(value: Any) -> str:
    """A folder, made absolute, or a URL."""
    found = text(value)
    return found.rstrip("/") if "://" in found else path(found)


def headers(value: Any) -> tuple[tuple[str, str], ...]:
    """A table of header names to texts."""
    if not isinstance(value, dict):
        raise ValueError(f"must be a table of names and texts, got {type(value).__name__}")
    pairs: list[tuple[str, str]] = []
    for name, content in value.items():
        if not isinstance(content, str) or not _HEADER_VALUE.fullmatch(content):
            raise ValueError(
                f"{name}: must be a text of printable ASCII on one line"
            )  # never quoted: a secret, perhaps
        if not _HEADER_NAME.fullmatch(str(name).lower()):
            raise ValueError(f"{shown(name)} must be a header's name: letters, digits, '-', '_' and '.'")
        pairs.append((str(name).lower(), str(content)))
    return tuple(pairs)


def otlp_url(value: Any) -> str:
    """The URL of an OTLP destination."""
    wanted = "must be a URL such as http://127.0.0.1:4317 (gRPC) or http://host:4318 (HTTP)"
    parts = urlsplit(text(value))
    if parts.scheme not in ("http", "https", "grpc", "grpcs") or not parts.hostname:
        raise ValueError(f"{wanted}, got {shown(value)}")
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"the port must be 1 to 65535, got {shown(value)}") from None
    if port is None and parts.scheme.startswith("grpc"):
        raise ValueError(f"{wanted}; gRPC needs a port, got {shown(value)}")
    if parts.username or parts.password:
        raise ValueError("must not hold a password; give it as a header")
    return str(value)


def http_url(value: Any) -> str:
    """The URL of an HTTP interface."""
    wanted = "must be a URL such as http://127.0.0.1:8123"
    parts = urlsplit(text(value))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{wanted}, got {shown(value)}")
    if parts.username or parts.password or parts.query:
        raise ValueError("must not hold a user, a password or settings; they have keys of their own")
    try:
        parts.port  # noqa: B018 - reading it is the check
    except ValueError:
        raise ValueError(f"the port must be 1 to 65535, got {shown(value)}") from None
    return str(value)


def secret(value: Any) -> str:
    """A text that no error quotes."""
    if not isinstance(value, str):
        raise ValueError("must be a text")
    return str(value)


def engine(value: Any) -> str:
    """A ClickHouse table engine with its parameters, as ClickHouse's SQL has it: it becomes a part of a statement."""
    if not isinstance(value, str) or not _ENGINE.fullmatch(value):
        raise ValueError(f"must be an engine such as MergeTree or ReplicatedMergeTree, got {shown(value)}")
    return str(value)


def _number_and_unit(value: Any, wanted: str) -> tuple[float, str]:
    if isinstance(value, Scalar) and isinstance(value.value, int | float) and ":" not in value:
        value = value.value  # 0x10, 0123 and 1_000 as YAML has them, but no times of day
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value), ""
    found = _NUMBER_AND_UNIT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        hint = "; write it as one number with a unit" if isinstance(value, str) and ":" in value else ""
        raise ValueError(f"must be {wanted}, got {shown(value)}{hint}")
    return float(found[1]), found[2]
