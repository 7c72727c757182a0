"""The cities are all there, and Datasette answers what the visitors ask."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from datasette_cities import build, load


@pytest.fixture(scope="session")
def cities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of all cities, built once."""
    folder = tmp_path_factory.mktemp("cities")
    build.build(folder)
    return folder


def test_the_database_holds_all_cities(cities: Path) -> None:
    """More than 100,000 real cities, each with its country and time zone, searchable by name."""
    with sqlite3.connect(cities / build.FILE) as connection:
        (count,) = connection.execute("SELECT count(*) FROM cities").fetchone()
        (orphans,) = connection.execute(
            "SELECT count(*) FROM cities LEFT JOIN countries ON iso = country"
            " LEFT JOIN timezones ON timezones.name = timezone WHERE iso IS NULL OR timezones.name IS NULL"
        ).fetchone()
        found = connection.execute(
            "SELECT country FROM cities WHERE id IN (SELECT rowid FROM cities_fts WHERE cities_fts MATCH 'reykjavik')"
        ).fetchall()
    connection.close()
    assert count >= build.MIN_CITIES
    assert orphans == 0
    assert ("IS",) in found


def test_the_database_is_built_once(cities: Path) -> None:
    """A second build leaves the file as it is and gives the same facts."""
    before = (cities / build.FILE).stat().st_mtime_ns
    facts = build.build(cities)
    assert (cities / build.FILE).stat().st_mtime_ns == before
    assert facts["bytes"] == (cities / build.FILE).stat().st_size


def test_the_licence_of_the_data_is_shown(cities: Path) -> None:
    """Whoever looks at the data sees where they come from and under which licence."""
    assert "CC BY 4.0" in (cities / build.METADATA_FILE).read_text()


def test_visitors_do_the_same_for_the_same_seed() -> None:
    """The paths depend on number and seed alone and cover pages, facets, search, JSON and SQL."""
    asked = load.targets(10, seed=3)
    assert asked == load.targets(10, seed=3) != load.targets(10, seed=4)
    for part in ("_facet=", "_search=", ".json", "sql=", "_sort_desc="):
        assert any(part in target for target in asked), part
