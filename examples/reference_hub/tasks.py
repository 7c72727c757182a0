"""What a user does in the hub: ask, browse, add, look at figures. One public function each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pluggy

from hubscope import instrumentation as hub
from reference_hub.embedding import embed
from reference_hub.flags import Flags
from reference_hub.hooks import Note
from reference_hub.memory_store import Memory, MemoryStore, Page
from reference_hub.personas import Persona
from reference_hub.profile_cache import ProfileCache
from reference_hub.vector_index import VectorIndex

STORE = "memories"
# The index holds 8 bits a coordinate, so many more are recalled than are shown, and the exact vectors choose.
CANDIDATES = 400
WEIGHED = 60  # the best candidates are weighed by how near their package is to the persona's interests
BEST = 30
QUOTED = 8
INTEREST_WEIGHT = 0.15


@dataclass(frozen=True)
class Application:
    """Everything that is open while the hub runs."""

    flags: Flags
    personas: dict[str, Persona]
    store: MemoryStore
    index: VectorIndex
    plugins: pluggy.PluginManager
    profiles: ProfileCache


@dataclass(frozen=True)
class Answer:
    text: str
    memories: tuple[str, ...]
    notes: dict[str, tuple[str, ...]]


class Refused(ValueError):
    """The hub will not do that, because."""


def answer_question(app: Application, persona: Persona, question: str) -> Answer:
    """Recalls memories near the question, lets the plugins enrich them, and quotes the best."""
    with hub.task("answer_question", persona=persona.id):
        best = _recall(app, persona, question)
        notes: list[Note] = app.plugins.hook.enrich(question=question, memories=best)
        dropped = frozenset[int]().union(*(note.drop for note in notes))
        quoted = [memory for memory in best if memory.id not in dropped][:QUOTED]
        if quoted:
            app.store.touch([memory.id for memory in quoted])
        return Answer(
            _compose(persona, question, quoted),
            tuple(memory.title for memory in quoted),
            {note.plugin: note.lines for note in notes if note.lines},
        )


def browse_memories(app: Application, persona: Persona, kind: str, page: int) -> Page:
    """One page of the persona's memories of one kind, the most important first."""
    with hub.task("browse_memories", persona=persona.id):
        return app.store.browse(persona.id, kind, page)


def add_memory(app: Application, persona: Persona, text: str) -> int:
    """Stores a note and makes it findable; returns its id. Raises Refused with a plugin's reason."""
    with hub.task("add_memory", persona=persona.id):
        reason = app.plugins.hook.accept(text=text)
        if reason:
            raise Refused(reason)
        vector = embed(text)
        with hub.memory_operation("create", store=STORE, persona=persona.id):
            id = app.store.add(persona.id, text, vector)
            with hub.vector_upsert(STORE):
                app.index.add(id, vector)
        return id


def memory_statistics(app: Application, persona: Persona) -> dict[str, float]:
    """How long the persona's memories are: their number, the median, and how far from normal the logarithms are."""
    with hub.task("memory_statistics", persona=persona.id):
        from scipy import stats  # only here: importing it takes longer than the whole start otherwise

        lengths = np.array(app.store.lengths(persona.id), dtype=np.float64)
        if len(lengths) < 20:
            raise Refused(f"{persona.name} has {len(lengths)} memories, too few for statistics")
        return {
            "memories": float(len(lengths)),
            "median_characters": float(np.median(lengths)),
            "skewness_of_logarithm": float(stats.skew(np.log(lengths))),
        }


def _recall(app: Application, persona: Persona, question: str) -> list[Memory]:
    """The 30 memories that fit the question best, in this persona's eyes."""
    with hub.memory_operation("search", store=STORE, persona=persona.id):
        asked = embed(question)
        with hub.vector_search(STORE):  # names the index; the rest is seen by itself
            ids = app.index.nearest(asked, CANDIDATES)
        if app.flags.n_plus_one:
            candidates = [memory for memory in map(app.store.memory, ids) if memory is not None]
        else:
            candidates = app.store.memories(ids)
        candidates.sort(key=lambda memory: -float(memory.vector @ asked))
        interests = embed(persona.interests)
        weighed = [
            (
                float(memory.vector @ asked)
                + INTEREST_WEIGHT * float(app.profiles.profile(memory.package) @ interests),
                memory,
            )
            for memory in candidates[:WEIGHED]
        ]
        weighed.sort(key=lambda pair: -pair[0])
        return [memory for _, memory in weighed[:BEST]]


def _compose(persona: Persona, question: str, quoted: list[Memory]) -> str:
    if not quoted:
        return f"{persona.name}, remembers nothing about {question!r}."
    lines = [f"{persona.name}, remembers about {question!r}:"]
    for memory in quoted:
        first = memory.text.split("\n\n", 1)[0].replace("\n", " ")
        lines.append(f"  {memory.title}: {first[:240]}")
    return "\n".join(lines)
