"""What an instrumentation puts into a library, to be taken out again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Patches:
    """Functions and methods that were put in. `on` is false once they are out: a bound method kept by the application
    runs unmeasured then."""

    def __init__(self) -> None:
        self.on = False
        self._kept: list[tuple[Any, str, Any]] = []

    def put(self, owner: Any, name: str, measured: Callable[[Any], Any]) -> None:
        """`measured(original)` in place of what `owner` itself defines; nothing where it defines none, or where that
        is measured already."""
        original = vars(owner).get(name)
        if original is None or any(kept[0] is owner and kept[1] == name for kept in self._kept):
            return
        setattr(owner, name, measured(original))
        self._kept.append((owner, name, original))

    def take_out(self) -> None:
        """Give every class and module its own functions back."""
        self.on = False
        while self._kept:
            owner, name, original = self._kept.pop()
            setattr(owner, name, original)
