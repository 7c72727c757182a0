"""Visitors of the cities: python -m datasette_cities.load URL [--requests 20] [--seed 1]

Table pages, filters, facets, full-text search, rows, the JSON API and SQL of their own, one request after the other,
the same ones in the same order for the same seed. Prints one JSON object: requests, failures, seconds.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sys
import time
from typing import Any
from urllib.parse import urlencode, urlsplit

COUNTRIES = ("DE", "FR", "US", "IN", "BR", "JP", "KE", "NO")
NAMES = ("San", "Neu", "Nova", "Kirk", "Villa", "Port")
ZONES = ("Europe/Berlin", "Asia/Kolkata", "America/Sao_Paulo", "Africa/Nairobi")
LARGEST = """\
select country, count(*) as cities, max(population) as largest from cities
where population > :least group by country order by largest desc limit 20"""
NEAR = """\
select name, country, population from cities
where latitude between :south and :north and longitude between :west and :east order by population desc limit 50"""
TIMEOUT_S = 60.0


def targets(requests: int, seed: int) -> list[str]:
    """Paths to ask for. Every kind comes up in turn, its values are drawn by `seed`."""
    chance = random.Random(seed)
    made = []
    for i in range(requests):
        country, name, zone = chance.choice(COUNTRIES), chance.choice(NAMES), chance.choice(ZONES)
        south, west = chance.randrange(-50, 60), chance.randrange(-120, 140)
        box = {"south": south, "north": south + 5, "west": west, "east": west + 5}
        kinds: tuple[tuple[str, dict[str, Any]], ...] = (
            ("/", {}),
            ("/cities/cities", {}),
            ("/cities/cities", {"_facet": "country", "timezone": zone}),
            ("/cities/cities", {"country": country, "_sort_desc": "population"}),
            ("/cities/cities", {"_search": name}),
            ("/cities/cities.json", {"country": country, "population__gt": 100_000, "_shape": "array"}),
            ("/cities/countries", {"_facet": "continent"}),
            ("/cities.json", {"sql": LARGEST, "least": chance.randrange(10_000, 500_000), "_shape": "array"}),
            ("/cities", {"sql": NEAR, **box}),
            (f"/cities/countries/{country}", {}),
        )
        path, query = kinds[i % len(kinds)]
        made.append(f"{path}?{urlencode(query)}" if query else path)
    return made


def drive(url: str, todo: list[str]) -> dict[str, Any]:
    """Asks for the paths over one connection; raises OSError if nothing answers there."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=TIMEOUT_S)
    failures: list[str] = []
    size = 0
    begin = time.perf_counter()
    for target in todo:
        connection.request("GET", target)
        response = connection.getresponse()
        body = response.read()
        size += len(body)
        if response.status != 200:
            failures.append(f"GET {target}: {response.status} {body[:200]!r}")
    connection.close()
    return {
        "requests": len(todo),
        "failures": failures,
        "seconds": round(time.perf_counter() - begin, 3),
        "bytes": size,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m datasette_cities.load", description="Visitors of the cities.")
    parser.add_argument("url", help="where Datasette listens: http://127.0.0.1:8001")
    parser.add_argument("--requests", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    try:
        done = drive(given.url, targets(given.requests, given.seed))
    except (OSError, http.client.HTTPException) as error:
        print(f"error: Datasette at {given.url} does not answer: {error!r}", file=sys.stderr)
        return 1
    print(json.dumps(done))
    return 1 if done["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
