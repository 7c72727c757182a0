"""The order of the processors, in one place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

from hubscope.processors.arriving import Arriving
from hubscope.processors.attribute_limits import AttributeLimits
from hubscope.processors.batch import Processor
from hubscope.processors.derived import Derived
from hubscope.processors.enrichment import added
from hubscope.processors.kpis import Kpis
from hubscope.processors.options import ProcessorOptions
from hubscope.processors.quotas import Quotas
from hubscope.processors.redaction import Redaction
from hubscope.processors.rollup import Rollup
from hubscope.processors.rules import Rules
from hubscope.processors.sampling import KEPT_SNAPSHOTS, Sampling
from hubscope.processors.sampling_files import SamplingFiles
from hubscope.processors.snapshots import Remembered
from hubscope.processors.upstream import Upstream

_KEY_BYTES: Final = 32


class Chain(NamedTuple):
    """What a segment goes through: its requests first, then its rows."""

    arriving: tuple[Arriving, ...]
    added: tuple[tuple[str, str], ...]  # resource attributes, where the sender gave none
    batches: tuple[Processor, ...]

    @property
    def is_sampling(self) -> bool:
        """Whether spans leave with another batch than the one they came with."""
        return any(getattr(processor, "name", "") == Sampling.name for processor in self.batches)

    def counts(self) -> dict[str, dict[str, int]]:
        """What each processor tells of what it did, by its name; those that tell nothing are absent."""
        told = {processor.name: processor.counts() for processor in self.arriving}
        told |= {p.name: p.counts() for p in self.batches if isinstance(p, Remembered)}
        return {name: counts for name, counts in told.items() if counts}


def chain(
    rules: Rules, state_dir: Path | None, options: ProcessorOptions | None = None, *, is_local: bool = False
) -> Chain:
    """Everything, in its order. `is_local`: every sender is on this machine, so its resources are this machine's.

    Raises OSError where the key of hashes cannot be kept in `state_dir`.
    """
    options = options or ProcessorOptions()
    arriving: list[Arriving] = []
    if options.redaction.enabled:  # first: nothing that comes after sees a secret
        arriving.append(Redaction(options.redaction, _hash_key(state_dir)))
    arriving.append(AttributeLimits(options.attribute_limits))
    batches = processors(rules, state_dir)
    if state_dir is not None and (options.sampling.enabled or has_waiting(state_dir)):
        directory = Path(state_dir) / "processors"
        sampling = Sampling(options.sampling, directory)  # last: what is derived before it is derived of everything
        batches = (*batches, Remembered(sampling, directory, KEPT_SNAPSHOTS, is_durable=True))
    return Chain(tuple(arriving), added(options.enrichment, is_local), batches)


def has_waiting(state_dir: Path) -> bool:
    """Whether spans wait in sampling's state: they may also where it is switched off by now."""
    return any(spans for spans, _ in SamplingFiles(Path(state_dir) / "processors").named_in_snapshots())


def processors(rules: Rules, state_dir: Path | None) -> tuple[Processor, ...]:
    """What every batch of rows goes through, in this order. `state_dir` is the lake's `.state` (snapshots go to
    `processors/` in it); None keeps the windows in memory only, for a reader of files that never replays.
    """
    directory = None if state_dir is None else Path(state_dir) / "processors"
    upstream = Upstream()
    return (
        Remembered(upstream, directory),  # before those that derive: what came derived is not derived again
        Remembered(Derived(upstream), directory),  # before the KPIs, which are fed by what it derives
        Remembered(Kpis(rules, upstream), directory),
        Remembered(Quotas(rules, upstream), directory),
        Rollup(),  # after what it rolls up
    )


def _hash_key(state_dir: Path | None) -> bytes:
    """What hashes of secrets are made with: kept, so that the same secret has the same hash tomorrow."""
    if state_dir is None:
        return os.urandom(_KEY_BYTES)
    path = state_dir / "redaction-key"
    if path.exists() and len(key := path.read_bytes()) == _KEY_BYTES:
        return key
    key = os.urandom(_KEY_BYTES)
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(key)
        os.fsync(file.fileno())
    fresh.replace(path)
    return key
