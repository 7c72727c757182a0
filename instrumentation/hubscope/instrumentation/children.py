"""Python processes that the application starts pay nothing, unless HUBSCOPE_INSTRUMENT_CHILDREN asks for it.

Both ways of starting put a folder with a `sitecustomize` at the front of PYTHONPATH, which every child would inherit:
measured, 513 ms a child against 23. Our own folder is taken out before the application runs. The one of
`opentelemetry-instrument` is put back by that command after its set-up, and is kept from it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from typing import Any

from hubscope.instrumentation import settings

SITE_DIR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "site_dir")


def take_out(folder: str, environ: MutableMapping[str, str]) -> bool:
    """Take `folder` out of PYTHONPATH; whether it was there."""
    said = environ.get("PYTHONPATH")
    if said is None:
        return False
    parts = said.split(os.pathsep)
    kept = [part for part in parts if os.path.abspath(part or ".") != folder or not part]
    if len(kept) == len(parts):
        return False
    if kept:
        environ["PYTHONPATH"] = os.pathsep.join(kept)
    else:
        del environ["PYTHONPATH"]
    return True


def take_parent(environ: MutableMapping[str, str]) -> str:
    """The service.instance.id of the measured process that started this one; '' where none did.

    A process that replaced itself (`poetry run`) has not started another one: it has the same process id.
    """
    pid, _, instance = environ.pop(settings.PARENT, "").partition(":")
    return instance if pid != str(os.getpid()) else ""


def name_parent(environ: MutableMapping[str, str], instance: str) -> None:
    """Tell the children that will be measured whose they are: their starts are none of the application's."""
    if settings.is_true(settings.INSTRUMENT_CHILDREN):
        environ[settings.PARENT] = f"{os.getpid()}:{instance}"


def spare_children() -> None:
    """Keep `opentelemetry-instrument`'s folder from being inherited; called while that command sets up."""
    if settings.is_true(settings.INSTRUMENT_CHILDREN):
        return
    loader: Any = sys.modules.get("opentelemetry.instrumentation.auto_instrumentation")
    if loader is not None and hasattr(loader, "environ"):
        # It took the folder out for its set-up, and puts it back through this name when it is done: into a copy.
        loader.environ = dict(os.environ)
