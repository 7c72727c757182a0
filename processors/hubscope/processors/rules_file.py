"""Reads rules from TOML: every field checked, every mistake told at once with its path."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from hubscope.errors import ConfigError
from hubscope.processors.rules import AGGREGATES, KINDS, RESOURCES, SEVERITIES, Alert, Feed, Kpi, Quota, Rules
from hubscope.processors.targets import Target, parse_quantity


def load(path: str | None = None) -> Rules:
    """The packaged rules, overlaid by the file at `path`, or at $HUBSCOPE_RULES where `path` is None ('' is none).

    Raises ConfigError with every problem of every record at once, each as `kpi[3] 'startup.cold' target: …`.
    """
    packaged = resources.files("hubscope.processors")
    sources: list[tuple[str, str]] = [
        (name, packaged.joinpath(name).read_text(encoding="utf-8")) for name in ("kpis.toml", "quotas.toml")
    ]
    overlay = path if path is not None else os.environ.get("HUBSCOPE_RULES", "")
    if overlay:
        try:
            sources.append((overlay, Path(overlay).read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(
                f"the rules file {overlay} cannot be read: {reason}",
                "give a readable TOML file to --rules or HUBSCOPE_RULES, or leave both away for the packaged rules",
            ) from None
    return parse(sources)


def parse(sources: Iterable[tuple[str, str]]) -> Rules:
    """Rules from (file name, TOML text) pairs, later ones over earlier ones by name. Raises ConfigError."""
    problems: list[str] = []
    kpis: dict[str, Kpi] = {}
    alerts: dict[str, tuple[str, Alert | None, dict[str, Any]]] = {}
    quotas: dict[str, Quota] = {}
    for file_name, text in sources:
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            problems.append(f"{file_name}: {error}")
            continue
        for key in document.keys() - {"kpi", "alert", "quota"}:
            problems.append(f"{file_name}: {key}: not known; a rules file holds [[kpi]], [[alert]] and [[quota]]")
        for where, record in _records(document, "kpi", file_name, problems):
            kpi = _kpi(_Reader(record, where, problems))
            if kpi is not None:
                kpis[kpi.name] = kpi
        for where, record in _records(document, "quota", file_name, problems):
            quota = _quota(_Reader(record, where, problems))
            if quota is not None:
                quotas.pop(quota.name, None)  # a replaced record moves to the end: of equals the last holds
                quotas[quota.name] = quota
        for where, record in _records(document, "alert", file_name, problems):
            alerts[str(record.get("name", where))] = (where, None, record)
    checked = tuple(
        alert
        for where, _, record in alerts.values()
        if (alert := _alert(_Reader(record, where, problems), kpis)) is not None
    )
    if problems:
        raise ConfigError(
            f"the rules hold {len(problems)} mistake{'s' if len(problems) > 1 else ''}:",
            "docs/reference/kpis.md shows every field with an example",
            problems=tuple(problems),
        )
    return Rules(tuple(kpis.values()), checked, tuple(quotas.values()))


def _records(
    document: dict[str, Any], kind: str, file_name: str, problems: list[str]
) -> list[tuple[str, dict[str, Any]]]:
    found = document.get(kind, [])
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        problems.append(f"{file_name}: {kind}: must be written as [[{kind}]] records")
        return []
    return [(f"{file_name}: {kind}[{n}] {record.get('name', '(no name)')!r}", record) for n, record in enumerate(found)]


class _Reader:
    """Takes fields out of one TOML table, notes each problem with its path, and at the end the fields nobody knows."""

    def __init__(self, table: dict[str, Any], where: str, problems: list[str]) -> None:
        self.table, self.where, self.problems = dict(table), where, problems
        self.known: list[str] = []
        self.good = True

    def problem(self, name: str, what: str) -> None:
        self.good = False
        self.problems.append(f"{self.where} {name}: {what}")

    def text(self, name: str, *, required: bool = False, one_of: Iterable[str] = (), default: str = "") -> str:
        self.known.append(name)
        value = self.table.pop(name, None)
        if value is None:
            if required:
                self.problem(name, "is missing")
            return default
        if not isinstance(value, str) or not value.strip():
            self.problem(name, f"must be a text that is not empty, got {value!r}")
            return default
        if one_of and value not in one_of:
            self.problem(name, f"must be one of {', '.join(one_of)}, got {value!r}")
        return value

    def number(self, name: str, default: float, *, unit: str = "s", above: float = 0.0) -> float:
        """A number, or a quantity as text ("10 min")."""
        self.known.append(name)
        value = self.table.pop(name, None)
        if value is None:
            return default
        try:
            number = parse_quantity(value, unit) if isinstance(value, str) else value
        except ValueError as error:
            self.problem(name, str(error))
            return default
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            self.problem(name, f"must be a number, got {value!r}")
            return default
        if number < above:
            self.problem(name, f"must be at least {above:g}, got {value!r}")
        return float(number)

    def boolean(self, name: str) -> bool:
        self.known.append(name)
        value = self.table.pop(name, False)
        if not isinstance(value, bool):
            self.problem(name, f"must be true or false, got {value!r}")
            return False
        return value

    def texts(self, name: str, *, one_of: Iterable[str] = ()) -> tuple[str, ...]:
        """A text or a list of texts."""
        self.known.append(name)
        value = self.table.pop(name, ())
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list | tuple) or not all(isinstance(v, str) and v for v in values):
            self.problem(name, f"must be a text or a list of texts, got {value!r}")
            return ()
        for v in values:
            if one_of and v not in one_of:
                self.problem(name, f"must be one of {', '.join(one_of)}, got {v!r}")
        return tuple(values)

    def target(self, name: str, unit: str, *, required: bool = False) -> Target | None:
        text = self.text(name, required=required)
        if not text:
            return None
        try:
            return Target.parse(text, unit)
        except ValueError as error:
            self.problem(name, str(error))
            return None

    def sub(self, name: str) -> _Reader | None:
        self.known.append(name)
        value = self.table.pop(name, None)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.problem(name, f"must be a table, got {value!r}")
            return None
        return _Reader(value, f"{self.where} {name}:", self.problems)

    def finish(self) -> None:
        for name in self.table:
            self.problem(name, f"is not a field here; the fields are {', '.join(self.known)}")


def _where(reader: _Reader) -> dict[str, tuple[str, ...]]:
    table = reader.sub("where")
    if table is None:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for name, value in table.table.items():
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(v, str | bool | int | float) for v in values):
            reader.problem(f"where.{name}", f"must be a text, number, boolean or a list of them, got {value!r}")
            continue
        found[name] = tuple(str(v).lower() if isinstance(v, bool) else str(v) for v in values)
    return found


def _feed(reader: _Reader) -> Feed:
    spans, metric = reader.texts("span"), reader.text("metric")
    kind = tuple(k.capitalize() for k in reader.texts("kind"))
    root, status = reader.boolean("root"), reader.text("status")
    where = _where(reader)
    value = reader.text("value", default="duration" if spans else "value")
    for k in kind:
        if k not in KINDS:
            reader.problem("kind", f"must be one of {', '.join(k.upper() for k in KINDS)}, got {k!r}")
    if bool(spans) == bool(metric):
        reader.problem("span", "give either span or metric, and not both")
    if metric and (kind or root or status):
        reader.problem("metric", "kind, root and status are about spans and cannot stand beside metric")
    return Feed(spans, metric, where, kind, root, status, value)


def _sub_feed(reader: _Reader, name: str) -> Feed | None:
    sub = reader.sub(name)
    if sub is None:
        return None
    feed = _feed(sub)
    sub.finish()
    reader.good &= sub.good
    return feed


def _feeds(reader: _Reader) -> tuple[Feed, ...]:
    """`feeds = [{…}, {…}]`, or the fields of the only feed in the record itself."""
    if "feeds" not in reader.table:
        return (_feed(reader),) if {"span", "metric"} & reader.table.keys() else ()
    found = reader.table.pop("feeds")
    reader.known.append("feeds")
    if not isinstance(found, list) or not found or not all(isinstance(f, dict) for f in found):
        reader.problem("feeds", "must be a list of tables that is not empty")
        return ()
    feeds = []
    for n, table in enumerate(found):
        sub = _Reader(table, f"{reader.where} feeds[{n}]", reader.problems)
        feeds.append(_feed(sub))
        sub.finish()
        reader.good &= sub.good
    return tuple(feeds)


def _kpi(reader: _Reader) -> Kpi | None:
    name = reader.text("name", required=True)
    unit = reader.text("unit", required=True)
    aggregate = reader.text("aggregate", required=True, one_of=AGGREGATES)
    kpi = Kpi(
        name=name,
        title=reader.text("title", required=True),
        unit=unit,
        source=reader.text("source", required=True),
        aggregate=aggregate,
        severity=reader.text("severity", default="medium", one_of=SEVERITIES),
        unknown=reader.text("unknown", required=True),
        feeds=_feeds(reader),
        numerator=_sub_feed(reader, "numerator"),
        denominator=_sub_feed(reader, "denominator"),
        ratings=_sub_feed(reader, "ratings"),
        apdex_threshold_s=reader.number("apdex_threshold", 0.0),
        target=reader.target("target", unit),
        capability=reader.boolean("capability"),
        window_s=reader.number("window", 60.0, above=1.0),
        minimum_window_s=reader.number("minimum_window", 0.0),
        note=reader.text("note"),
    )
    if aggregate == "ratio":
        if kpi.numerator is None or kpi.denominator is None or kpi.feeds:
            reader.problem("aggregate", "a ratio needs numerator and denominator, and no feed beside them")
    elif not kpi.feeds:
        reader.problem("feeds", "is missing: give span or metric, or feeds = [{ … }]")
    elif kpi.numerator or kpi.denominator:
        reader.problem("numerator", "numerator and denominator are only for aggregate = 'ratio'")
    if (aggregate == "apdex") != (kpi.apdex_threshold_s > 0):
        reader.problem("apdex_threshold", "an apdex needs a threshold above 0 s, and nothing else has one")
    if kpi.ratings is not None and aggregate != "apdex":
        reader.problem("ratings", "only an apdex has ratings")
    reader.finish()
    return kpi if reader.good else None


def _alert(reader: _Reader, kpis: Mapping[str, Kpi]) -> Alert | None:
    name = reader.text("name", required=True)
    kpi = kpis.get(watched := reader.text("kpi", required=True))
    if kpi is None and watched:
        reader.problem("kpi", f"there is no KPI named {watched!r}")
    unit = kpi.unit if kpi else ""
    threshold = reader.target("threshold", unit, required=True)
    # 10 % back from the threshold unless told: less, and a value that trembles on it raises an alert a batch.
    default_clear = 0.0 if threshold is None else threshold.limit * (1.1 if threshold.lower_is_better else 0.9)
    alert_fields = {
        "title": reader.text("title", required=True),
        "severity": reader.text("severity", default="high", one_of=SEVERITIES),
        "source": reader.text("source", required=True),
        "note": reader.text("note"),
    }
    clear = reader.number("clear", default_clear, unit=unit, above=-math.inf)
    if threshold is not None and threshold.judge(clear):
        reader.problem("clear", f"must lie where the threshold {threshold} is not met, got {clear:g}")
    reader.finish()
    if threshold is None or not reader.good:
        return None
    return Alert(name=name, kpi=watched, threshold=threshold, clear=clear, **alert_fields)


def _quota(reader: _Reader) -> Quota | None:
    name = reader.text("name", required=True)
    resource = reader.text("resource", required=True, one_of=RESOURCES)
    unit = RESOURCES.get(resource, "")
    if "limit" not in reader.table:
        reader.problem("limit", "is missing")
    quota = Quota(
        name=name,
        resource=resource,
        limit=reader.number("limit", 0.0, unit=unit),
        # "None" is judged call by call, in bytes: a single call has no rate.
        unit="By" if resource == "network" and "window" not in reader.table else unit,
        source=reader.text("source", required=True),
        tier=reader.text("tier", default="*"),
        plugin=reader.text("plugin", default="*"),
        permission=reader.text("permission"),
        window_s=reader.number("window", 0.0),
        note=reader.text("note"),
    )
    if resource == "cpu" and quota.window_s <= 0:
        reader.problem("window", "a share of the CPU needs a window above 0 s")
    if resource == "network" and quota.window_s <= 0 and quota.limit > 0:
        reader.problem("window", "a rate needs a window above 0 s (only a limit of 0 can be judged call by call)")
    reader.finish()
    return quota if reader.good else None
