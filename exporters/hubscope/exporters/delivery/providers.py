"""Credentials from another package, by the entry points that the stock exporters know."""

from __future__ import annotations

from typing import Any, Final

GROUP: Final = "opentelemetry_otlp_credential_provider"


def provided(name: str, kind: type, kind_name: str) -> Any:
    """What the entry point of that name gives. Raises RuntimeError where there is none, or it gives something else."""
    from importlib.metadata import entry_points

    found = next(iter(entry_points(group=GROUP, name=name)), None)
    if found is None:
        raise RuntimeError(f"no installed package has the entry point {name!r} in {GROUP}: install it, or name another")
    given = found.load()()
    if not isinstance(given, kind):
        raise RuntimeError(f"the entry point {name!r} of {GROUP} gives a {type(given).__name__}, not a {kind_name}")
    return given
