"""The ledger: each prediction as it was made, and what a later version showed.

`<lake>/ledger.jsonl`, one JSON object a line, only ever added to: a prediction is never changed afterwards, and one
made on a version is not made again once a later version has run. Lines are appended by replacing the file, so that a
reader or a crash never meets half a line.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hubscope.analytics import shown
from hubscope.analytics.model import Bottleneck, Ledger, LedgerEntry, Predicted, Recommendation
from hubscope.analytics.scope import Scope
from hubscope.errors import LakeError

LEDGER_VERSION: Final = 1
FILE: Final = "ledger.jsonl"


def path_of(lake: str) -> Path | None:
    """Where the ledger of a lake lies; None for a lake at a URL, which has no file beside it."""
    return None if "://" in lake else Path(lake) / FILE


@dataclasses.dataclass(frozen=True)
class Damaged:
    """A line of a ledger that is no prediction: half written by another program, or edited."""

    line: int  # from 1
    because: str


# What to do about damaged lines: they are left where they are, for nobody but their owner knows what they were.
REMEDY: Final = "remove such lines; the others stand for themselves"


def read(path: Path) -> tuple[Recommendation, ...]:
    """All predictions in the order they were made. LakeError for a file that cannot be read, or a newer version's."""
    return _lines(path)[0]


def damaged(path: Path) -> tuple[Damaged, ...]:
    """The lines that `read` leaves out. Raises LakeError as it does."""
    return _lines(path)[1]


def _lines(path: Path) -> tuple[tuple[Recommendation, ...], tuple[Damaged, ...]]:
    if not path.exists():
        return (), ()
    found, left_out = [], []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise LakeError(f"the ledger {path} cannot be read: {error}", "is it a file that may be read?") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            version = record["ledger_version"]
            if version > LEDGER_VERSION:
                raise LakeError(
                    f"the ledger {path} is of version {version}; this hubscope reads up to {LEDGER_VERSION}",
                    "upgrade hubscope: pip install --upgrade hubscope",
                )
            found.append(_recommendation(record["recommendation"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            left_out.append(Damaged(number, f"{type(error).__name__}: {error}"))
    return tuple(found), tuple(left_out)


def is_prediction(made: Recommendation) -> bool:
    return made.predicted.low is not None and made.predicted.high is not None


def add(path: Path, made: Sequence[Recommendation]) -> None:
    """Appends predictions that the ledger does not hold yet, atomically. LakeError where it cannot be written.

    What has no range is an estimate from one run, and is not kept.
    """
    known = {(r.fingerprint, r.version) for r in read(path)}
    new = [r for r in made if is_prediction(r) and (r.fingerprint, r.version) not in known]
    if not new:
        return
    lines = "".join(
        json.dumps({"ledger_version": LEDGER_VERSION, "recommendation": r.to_dict()}, sort_keys=True) + "\n"
        for r in new
    )
    try:
        before = path.read_bytes() if path.exists() else b""
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".ledger-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(before + (b"" if before.endswith(b"\n") or not before else b"\n") + lines.encode())
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise LakeError(
            f"the ledger {path} cannot be written: {error.strerror or error}",
            "free disk space or allow writing there; the report can be made again",
        ) from error


def _recommendation(plain: Mapping[str, Any]) -> Recommendation:
    fields = dict(plain)
    fields["for_"] = tuple(fields.pop("for"))
    predicted = Predicted(**fields["predicted"])
    for name in ("now", "then", "saving", "low", "high"):
        if not isinstance(getattr(predicted, name), int | float):
            raise TypeError(f"predicted.{name} is no number")
    fields["predicted"] = dataclasses.replace(predicted, dimensions=dict(predicted.dimensions))
    return Recommendation(**fields)


def settle(
    made: Sequence[Recommendation],
    scopes: Mapping[str, Sequence[Scope]],
    found: Mapping[tuple[str, str], Sequence[Bottleneck]],
) -> Ledger:
    """Each prediction beside what was observed.

    `scopes` are the groups of runs of each service, one a version, oldest first; `found` the findings of each
    (service, version). The observation is the latest version's after the one it was made on. What that version does not
    show to have been changed is not observed: it stays open, and counts neither for nor against the record.
    """
    entries = _scored_once(made, [_entry(r, scopes.get(r.service or "", ()), found) for r in made], scopes)
    observed = [e for e in entries if e.observed is not None]
    errors = [abs(e.predicted - e.observed) / abs(e.observed) for e in observed if e.observed]
    return Ledger(
        predictions=len(entries),
        observed=len(observed),
        covered=sum(bool(e.covered) for e in observed),
        mean_absolute_percentage_error=statistics.fmean(errors) if errors else None,
        entries=tuple(entries),
    )


def _scored_once(
    made: Sequence[Recommendation], entries: Sequence[LedgerEntry], scopes: Mapping[str, Sequence[Scope]]
) -> list[LedgerEntry]:
    """Of the predictions for one cause that versions made one after another, the last is scored: one fix, one score.

    The last that was seen to come true, else the last that a later version was held against.
    """
    place = {(name, scope.name or None): i for name, versions in scopes.items() for i, scope in enumerate(versions)}

    def rank(i: int) -> tuple[bool, int]:
        return entries[i].observed is not None, place.get((made[i].service or "", made[i].version), -1)

    scored = []
    for i, entry in enumerate(entries):
        rivals = [
            k
            for k, other in enumerate(entries)
            if other.observed_on is not None
            and made[k].service == made[i].service
            and made[k].version != made[i].version
            and not set(made[k].for_).isdisjoint(made[i].for_)
        ]
        best = max(rivals, key=rank, default=i)
        if entry.observed_on is not None and rank(best) > rank(i):
            entry = dataclasses.replace(
                entry,
                observed_on=None,
                observed=None,
                observed_low=None,
                observed_high=None,
                covered=None,
                reason=f"one change is scored once: by the prediction made on {made[best].version or 'no version'}",
            )
        scored.append(entry)
    return scored


def _entry(
    made: Recommendation, versions: Sequence[Scope], found: Mapping[tuple[str, str], Sequence[Bottleneck]]
) -> LedgerEntry:
    p = made.predicted
    predicted_low, predicted_high = (p.saving if end is None else end for end in (p.low, p.high))

    def entry(reason: str, later: Scope | None = None, seen: shown.Change | None = None) -> LedgerEntry:
        saving = seen.saving if seen else None
        certain = seen.low if seen and seen.low is not None else math.inf
        return LedgerEntry(
            fingerprint=made.fingerprint,
            service=made.service or "",
            change=made.change,
            metric=p.metric,
            dimensions=dict(p.dimensions),
            unit=p.unit,
            made_on=made.version,
            predicted=p.saving,
            predicted_low=predicted_low,
            predicted_high=predicted_high,
            observed_on=later.name or None if later else None,
            observed=saving,
            observed_low=seen.low if seen else None,
            observed_high=seen.high if seen else None,
            # What was not certainly saved did not come true, however wide the predicted range is.
            covered=(
                None if saving is None else predicted_low <= saving <= predicted_high and min(certain, saving) > 0
            ),
            reason=reason,
        )

    names = [scope.name or None for scope in versions]
    if made.version not in names:
        return entry("the version it was made on has no runs in this window")
    place = names.index(made.version)
    if place == len(versions) - 1:
        return entry("no later version has run yet")
    before, later = versions[place], versions[-1]
    seen = shown.change(before, later, p.metric, p.dimensions, shown.SHOWN_SHARE * p.saving, p.unit)
    if seen.is_shown and seen.saving is not None:
        return entry(seen.reason, later, seen)
    seen_later = {f for b in found.get((later.service, later.name), ()) for f in b.fingerprints}
    if not seen_later.isdisjoint(made.for_):
        return entry(f"{later.name} still shows the finding: the change has not been made", later)
    return entry(f"{shown.NOT_SEEN}: {seen.reason}", later)
