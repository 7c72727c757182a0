"""Which proxy stands between, by the variables that requests (and so the stock exporter) reads.

`http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, small letters before capitals.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit


def proxy_of(url: SplitResult, environ: Mapping[str, str]) -> SplitResult | None:
    """The proxy for that URL, or None for a direct connection. Raises ValueError for an address that is none."""
    said = _said(f"{url.scheme}_proxy", environ) or _said("all_proxy", environ)
    if not said or _is_spared(url, _said("no_proxy", environ)):
        return None
    proxy = urlsplit(said if "://" in said else f"http://{said}")
    if not proxy.hostname:
        raise ValueError(f"{url.scheme}_proxy: expected a URL as http://proxy:3128")
    _ = proxy.port  # raises ValueError for one that is none
    return proxy


def _said(name: str, environ: Mapping[str, str]) -> str:
    if name in environ:
        return environ[name].strip()
    if name == "http_proxy" and "REQUEST_METHOD" in environ:
        return ""  # a CGI script: HTTP_PROXY is the request's header `Proxy`
    return environ.get(name.upper(), "").strip()


def _is_spared(url: SplitResult, no_proxy: str) -> bool:
    host = (url.hostname or "").lower()
    entries = [entry for entry in no_proxy.replace(" ", "").lower().split(",") if entry]
    if no_proxy == "*":
        return True
    address = _address(host)
    for entry in entries:
        if address is not None:
            if entry == host or _in_network(address, entry):
                return True
            continue
        name = entry.lstrip(".")
        for candidate in (host, f"{host}:{url.port}"):
            if candidate.endswith(entry) or candidate == name:  # `ample.org` spares example.org too, as in requests
                return True
    return False


def _address(host: str) -> int | None:
    """An IPv4 address as a number."""
    parts = host.split(".")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() and int(part) < 256 for part in parts):
        return None
    return int.from_bytes(bytes(int(part) for part in parts), "big")


def _in_network(address: int, entry: str) -> bool:
    text, slash, bits = entry.partition("/")
    network = _address(text)
    if network is None or not slash or not bits.isdigit() or not 0 <= int(bits) <= 32:
        return False
    shift = 32 - int(bits)
    return address >> shift == network >> shift
