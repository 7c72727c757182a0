"""Caches: cachetools, diskcache, theine and functools.lru_cache, the real ones."""

from __future__ import annotations

import copy
import functools
import gc
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import context

from hubscope.instrumentation import cache_watch
from hubscope.instrumentation.libraries.cachetools import CachetoolsInstrumentor
from hubscope.instrumentation.libraries.diskcache import DiskcacheInstrumentor
from hubscope.instrumentation.libraries.lru_cache import LruCacheInstrumentor
from hubscope.instrumentation.libraries.theine import TheineInstrumentor

INSTRUMENTORS = (CachetoolsInstrumentor, DiskcacheInstrumentor, LruCacheInstrumentor, TheineInstrumentor)


@pytest.fixture
def measured(recorded) -> Iterator[None]:
    """Every cache measured for one test."""
    for instrumentor in INSTRUMENTORS:
        instrumentor().instrument()
    yield
    for instrumentor in INSTRUMENTORS:
        instrumentor().uninstrument()


def _told(recorded: Any, name: str) -> dict[str, Any]:
    """What the metrics say of the caches whose name ends so."""
    metrics = recorded.metrics()
    told: dict[str, Any] = {}
    for point in metrics.get("hub.cache.requests", []):
        if point.attributes["hub.cache.name"].endswith(name):
            told[point.attributes["hub.cache.result"]] = point.value
    for key, metric in (("evictions", "hub.cache.evictions"), ("size", "hub.cache.size")):
        for point in metrics.get(metric, []):
            if point.attributes["hub.cache.name"].endswith(name):
                told[key] = point.value
                if "hub.cache.capacity" in point.attributes:
                    told["capacity"] = point.attributes["hub.cache.capacity"]
    return told


@pytest.mark.parametrize("kind", ["LRUCache", "LFUCache", "FIFOCache", "RRCache"])
def test_cachetools_counts_look_ups_and_evictions(measured, recorded, kind):
    """`[]`, `get` and `setdefault` are look-ups; what a write puts out is an eviction, `pop` and `popitem` are none."""
    cachetools = pytest.importorskip("cachetools")
    cache = getattr(cachetools, kind)(maxsize=2)
    cache["a"] = cache["b"] = 1
    assert cache["a"] == 1
    assert cache.get("b") == 1
    assert cache.get("nothing", 7) == 7
    with pytest.raises(KeyError):
        cache["nothing"]
    cache.setdefault("c", 3)  # a miss, and an eviction
    cache.setdefault("c", 4)
    cache.pop("c")
    cache.popitem()
    assert _told(recorded, kind) == {"hit": 3, "miss": 3, "evictions": 1, "size": 0, "capacity": 2}


def test_cachetools_timed_caches(measured, recorded):
    """An expired item is a miss and no eviction; reading the size does not put out what has expired."""
    cachetools = pytest.importorskip("cachetools")
    now = 0
    cache = cachetools.TTLCache(maxsize=8, ttl=10, timer=lambda: now)
    cache["a"] = 1
    assert cache["a"] == cache.get("a") == 1
    now = 20
    assert cache.get("a") is None
    told = _told(recorded, "TTLCache")
    assert (told["hit"], told["miss"], told["size"]) == (2, 1, 1)
    assert "evictions" not in told


def test_cachetools_a_decorated_function_gives_its_name(measured, recorded):
    """`@cached` caches are told by function, and work as before: `cache`, `cache_key`, threads' locks."""
    cachetools = pytest.importorskip("cachetools")

    @cachetools.cached(cachetools.LRUCache(maxsize=2))
    def square(n):
        return n * n

    assert [square(n) for n in (1, 2, 3, 3, 1)] == [1, 4, 9, 9, 1]
    assert _told(recorded, "square") == {"hit": 1, "miss": 4, "evictions": 2, "size": 2, "capacity": 2}


def test_cachetools_a_missing_that_loads_is_a_miss(measured, recorded):
    """A subclass whose `__missing__` makes the value: that look-up is a miss, the next one a hit."""
    cachetools = pytest.importorskip("cachetools")

    class Loading(cachetools.LRUCache):
        def __missing__(self, key):
            self[key] = value = key * 2
            return value

    cache = Loading(maxsize=4)
    assert [cache[2], cache[2], cache[3]] == [4, 4, 6]
    told = _told(recorded, "Loading")
    assert (told["hit"], told["miss"], told["size"]) == (1, 2, 2)


def test_cachetools_caches_hold_nothing_of_ours(measured, recorded):
    """A copy, a pickle and `vars` of a cache are as without measuring."""
    cachetools = pytest.importorskip("cachetools")
    cache = cachetools.LRUCache(maxsize=2)
    before = set(vars(cache))
    cache["a"] = 1
    assert cache["a"] == 1
    assert set(vars(cache)) == before
    assert pickle.loads(pickle.dumps(cache)) == copy.copy(cache) == cache
    assert b"hubscope" not in pickle.dumps(cache)


def test_counts_of_a_cache_that_is_gone_are_told_once(measured, recorded):
    """A cache that lived for one request is in the counts, and weighs nothing afterwards."""
    cachetools = pytest.importorskip("cachetools")
    for _ in range(3):
        cache = cachetools.LRUCache(maxsize=2)
        cache.get("a")
        del cache
    gc.collect()
    assert _told(recorded, "LRUCache") == {"miss": 3}
    assert _told(recorded, "LRUCache") == {"miss": 3}


def test_suppressed_look_ups_are_not_counted(measured, recorded):
    """Under OpenTelemetry's suppression nothing is counted."""
    cachetools = pytest.importorskip("cachetools")
    cache = cachetools.LRUCache(maxsize=2)
    token = context.attach(context.set_value("suppress_instrumentation", True))
    cache.get("a")
    context.detach(token)
    assert "miss" not in _told(recorded, "LRUCache")


def test_the_access_log_is_hashed_and_a_sample_of_keys(measured, recorded):
    """A cache of 4,096 logs one in 4 keys, each with all its look-ups, and no key can be read from it."""
    cachetools = pytest.importorskip("cachetools")
    cache = cachetools.LRUCache(maxsize=4096)
    for _ in range(2):
        for n in range(4000):
            cache.setdefault(n, "secret value")
    cache_watch.flush_all()
    events = [attributes for name, attributes in recorded.events if name == "hub.cache.access"]
    keys = [key for event in events for key in event["hub.cache.keys"].split(",")]
    hits = "".join(event["hub.cache.hits"] for event in events)
    assert {event["hub.cache.one_in"] for event in events} == {4}
    assert 0.8 < len(set(keys)) / 1000 < 1.2
    half = len(keys) // 2
    assert keys[:half] == keys[half:]
    assert hits == "0" * half + "1" * half
    assert cache_watch.number_hash(3999) in keys or cache_watch.number_hash(3998) in keys or len(set(keys)) < 4000


def test_lru_cache_costs_no_wrapper(measured, recorded):
    """`functools.lru_cache` and what it makes are the same objects and types; their own counts are told."""
    kind = functools._lru_cache_wrapper

    @functools.lru_cache(maxsize=2)
    def double(n):
        return 2 * n

    @functools.cache
    def triple(n):
        return 3 * n

    assert type(double) is type(triple) is kind
    assert [double(n) for n in (1, 2, 3, 3, 1)] == [2, 4, 6, 6, 2]
    assert [triple(n) for n in (1, 1)] == [3, 3]
    assert _told(recorded, "double") == {"hit": 1, "miss": 4, "evictions": 2, "size": 2, "capacity": 2}
    assert _told(recorded, "triple") == {"hit": 1, "miss": 1, "size": 1}
    double.cache_clear()
    double(1)
    told = _told(recorded, "double")
    assert (told["hit"], told["miss"], told["size"]) == (1, 5, 1)


def test_lru_caches_made_before_are_found(recorded):
    """What was decorated before the measuring began is read too; the standard library's own caches are not."""

    @functools.lru_cache
    def early(n):
        return n

    early(1)
    LruCacheInstrumentor().instrument()
    try:
        assert _told(recorded, "early") == {"miss": 1, "size": 1, "capacity": 128}
        assert not any(p.attributes["hub.cache.name"].startswith("re.") for p in recorded.metrics()["hub.cache.size"])
    finally:
        LruCacheInstrumentor().uninstrument()


def test_diskcache(measured, recorded, tmp_path: Path):
    """Gets, items, memoized functions and shards are look-ups of the folder's cache; tuples and defaults come back."""
    diskcache = pytest.importorskip("diskcache")
    with diskcache.Cache(str(tmp_path / "answers")) as cache:
        cache["a"] = 1
        assert cache["a"] == cache.get("a") == 1
        assert cache.get("b", "default") == "default"
        assert cache.get("b", 5, expire_time=True, tag=True) == (5, None, None)
        assert cache.get("a", expire_time=True, tag=True) == (1, None, None)
        with pytest.raises(KeyError):
            cache["b"]
        cached = cache.memoize()(len)
        assert [cached("xy"), cached("xy")] == [2, 2]
    assert _told(recorded, "answers") == {"hit": 4, "miss": 4, "size": 1}
    with diskcache.FanoutCache(str(tmp_path / "shards"), shards=4) as cache:
        for n in range(20):
            cache.get(n)
    assert _told(recorded, "shards") == {"miss": 20}


def test_diskcache_counts_what_it_culls(measured, recorded, tmp_path: Path):
    """Items put out because the cache is larger than its limit are evictions."""
    diskcache = pytest.importorskip("diskcache")
    with diskcache.Cache(str(tmp_path / "small"), size_limit=1, cull_limit=2) as cache:
        for n in range(5):
            cache[n] = "x" * 1000
        left = len(cache)
    assert _told(recorded, "small")["evictions"] == 5 - left


def test_theine(measured, recorded):
    """Look-ups of a cache, and of a memoized function with what its loads take."""
    theine = pytest.importorskip("theine")
    cache = theine.Cache(100)
    cache.set("a", 1)
    assert cache.get("a") == (1, True)
    assert cache.get("b") == (None, False)
    told = _told(recorded, "Cache")
    assert (told["hit"], told["miss"], told["size"], told["capacity"]) == (1, 1, 1, 100)

    @theine.Memoize(100, None)
    def answer(n):
        return n + 1

    assert [answer(1), answer(1)] == [2, 2]
    told = _told(recorded, "answer")
    assert (told["hit"], told["miss"]) == (1, 1)
    assert [span.name.endswith("answer") for span in recorded.spans] == [True]
    small = theine.Cache(10)
    for n in range(2000):
        small.set(n, n)
    small._force_drain_write()
    assert _told(recorded, "Cache")["evictions"] > 1000


def test_uninstrumenting_gives_everything_back(recorded, tmp_path: Path):
    """Classes, functions and code are those of before."""
    cachetools, diskcache = pytest.importorskip("cachetools"), pytest.importorskip("diskcache")
    theine = pytest.importorskip("theine")

    def state() -> list[Any]:
        kinds = [k for k in vars(cachetools).values() if isinstance(k, type)] + [diskcache.Cache, theine.Cache]
        return [*(dict(vars(k)) for k in kinds), functools.lru_cache.__code__, dict(vars(functools)), cachetools.cached]

    before = state()
    for instrumentor in INSTRUMENTORS:
        instrumentor().instrument()
    assert state() != before
    for instrumentor in INSTRUMENTORS:
        instrumentor().uninstrument()
    assert state() == before
