"""The hub's start, phase by phase, until it can answer."""

from __future__ import annotations

import importlib
from pathlib import Path

from hubscope import instrumentation as hub
from reference_hub import hooks, memory_store, personas, vector_index
from reference_hub.flags import Flags
from reference_hub.memory_store import MemoryStore
from reference_hub.profile_cache import CAPACITY, SMALL_CAPACITY, ProfileCache
from reference_hub.tasks import Application
from reference_hub.vector_index import VectorIndex


class NotPrepared(ValueError):
    """The data folder does not hold what the hub needs."""


def start(data: Path, flags: Flags, personas_file: Path = personas.DEFAULT_FILE) -> Application:
    """Opens everything. Raises NotPrepared, or ValueError for personas that cannot be read."""
    if not (data / memory_store.FILE).is_file() or not (data / vector_index.FILE).is_file():
        raise NotPrepared(
            f"{data} holds no memories."
            f" Make them (about 15 s): python -m reference_hub.prepare --data DIR --copy-to {data}"
        )
    with hub.phase("load_personas"):
        people = {persona.id: persona for persona in personas.load(personas_file)}
    with hub.phase("open_memory_store"):
        store = MemoryStore(data / memory_store.FILE)
        store.use_browse_index(not flags.no_index)
    with hub.phase("load_plugins"):
        if flags.eager_import:
            # What `from scipy import stats` at the top of tasks.py would do.
            importlib.import_module("scipy.stats")
        plugins = hooks.load(flags)
    with hub.phase("load_vector_index"):
        index = VectorIndex.load(data / vector_index.FILE)
        index.catch_up(store.vectors_after(len(index)))
    profiles = ProfileCache(SMALL_CAPACITY if flags.small_cache else CAPACITY, store.package_vectors)
    return Application(flags, people, store, index, plugins, profiles)
