"""Where a resource comes from, for senders that do not say: this machine's attributes, and those somebody configured.

Only what a sender left out is added, and the machine's only where every sender must be on it: a receiver that other
machines reach cannot know whose spans it got.
"""

from __future__ import annotations

import platform
import socket
import sys
from typing import Final

from hubscope.processors.options import EnrichmentOptions
from hubscope.semconv import HOST_ARCH, HOST_NAME, OS_DESCRIPTION, OS_TYPE

# The semantic conventions' words for what `platform.machine()` and `sys.platform` say.
_ARCHITECTURES: Final = {
    "x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64", "i386": "x86", "i686": "x86",
    "armv7l": "arm32", "armv6l": "arm32", "ppc64le": "ppc64", "ppc64": "ppc64", "s390x": "s390x",
}  # fmt: skip
_SYSTEMS: Final = {"linux": "linux", "darwin": "darwin", "win32": "windows"}


def added(options: EnrichmentOptions, is_local: bool) -> tuple[tuple[str, str], ...]:
    """The attributes for resources that have none of their key. What is configured comes before what is detected."""
    found = dict(options.attributes)
    if options.host and is_local:
        found = {**host(), **found}
    return tuple(found.items())


def host() -> dict[str, str]:
    """`host.name`, `host.arch`, `os.type` and `os.description` of this machine, as far as they are known."""
    machine = platform.machine().lower()
    found = {
        HOST_NAME: socket.gethostname(),
        HOST_ARCH: _ARCHITECTURES.get(machine, machine),
        OS_TYPE: _SYSTEMS.get(sys.platform, sys.platform),
        OS_DESCRIPTION: platform.platform(),
    }
    return {key: value for key, value in found.items() if value}
