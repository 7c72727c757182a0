"""What plugins of the hub can do, and the plugins that are loaded. pluggy calls every plugin that has the hook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pluggy

from reference_hub.flags import Flags
from reference_hub.memory_store import Memory

PROJECT = "reference_hub"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True)
class Note:
    """What one plugin adds to an answer. `drop` are ids of memories that should not be shown."""

    plugin: str
    lines: tuple[str, ...] = ()
    drop: frozenset[int] = field(default_factory=frozenset)


class Hooks:
    """The hooks, with what each gets and gives."""

    @hookspec
    def enrich(self, question: str, memories: Sequence[Memory]) -> Note:  # type: ignore[empty-body]  # pluggy never calls a specification
        """Adds to an answer, given the recalled memories, the best first."""

    @hookspec(firstresult=True)
    def accept(self, text: str) -> str | None:
        """Why a new memory is refused, or None if it is welcome."""


def load(flags: Flags) -> pluggy.PluginManager:
    """A plugin manager with the hub's plugins, each registered under its own name."""
    from reference_hub.plugins import ask_back, citations, duplicates, glossary, guard

    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Hooks)
    for name, plugin in (
        ("citations", citations.Citations()),
        ("glossary", glossary.Glossary()),
        ("ask-back", ask_back.AskBack()),
        ("near-duplicates", duplicates.NearDuplicates(letter_by_letter=flags.slow_plugin)),
        ("guard", guard.Guard()),
    ):
        manager.register(plugin, name=name)
    manager.check_pending()
    return manager
