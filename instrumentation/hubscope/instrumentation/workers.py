"""Forked children: processes of their own, which count from zero and send what they have before they leave.

Workers of `multiprocessing` and `ProcessPoolExecutor` leave through `os._exit`, so exit handlers never run there:
measured, 21 of 21 tasks of a pool were lost. `multiprocessing` runs finalizers of its own before `os._exit`; ours is
one of them, registered in each child. A `Pool` that is terminated (`with Pool() as pool`) ends its workers by SIGTERM;
those of an idle one are let go first. Nothing of `multiprocessing` is imported here.
"""

from __future__ import annotations

import copy
import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from wrapt import register_post_import_hook

from hubscope.instrumentation import settings

_log = logging.getLogger("hubscope")

# Finalizers run from the highest to the lowest: ours after any of the application, whose telemetry counts too. The
# lowest that multiprocessing itself uses is -100.
_LAST = -1000

_LOCK, _RLOCK = type(threading.Lock()), type(threading.RLock())
# Connections of the parent. Kept, because closing one takes locks that a thread which is not in the child may hold.
_inherited: list[Any] = []


class Workers:
    """Calls `send`, which returns within `timeout_s`, before a forked worker of `multiprocessing` leaves by itself."""

    def __init__(self, send: Callable[[], None], timeout_s: float, exporters: Callable[[], Iterable[Any]]) -> None:
        self._send = send
        self._exporters = exporters
        self._timeout_s = timeout_s
        self._util: Any = None
        register_post_import_hook(self._watch, "multiprocessing.util")
        register_post_import_hook(self._watch_pools, "multiprocessing.pool")

    def _watch(self, util: Any) -> None:
        self._util = util
        # In the child, after multiprocessing has dropped the parent's finalizers. It keeps `self` weakly.
        util.register_after_fork(self, Workers._in_child)

    def _in_child(self) -> None:
        self._util.Finalize(None, self._send, exitpriority=_LAST)
        for exporter in self._exporters():
            # gRPC: the parent's channel was seen to fail the first export of a child, and there is no second.
            renew = getattr(exporter, "_initialize_channel_and_stub", None)
            if renew is not None:
                _inherited.append((getattr(exporter, "_channel", None), getattr(exporter, "_client", None)))
                renew()

    def _watch_pools(self, module: Any) -> None:
        stock = module.Pool.terminate

        @functools.wraps(stock)
        def terminate(pool: Any) -> None:
            try:
                let_idle_workers_leave(pool, self._timeout_s)
            except Exception:  # noqa: BLE001 - never into the application
                _log.debug("the workers of a pool could not be let go", exc_info=True)
            finally:  # Ctrl-C may come while we wait
                stock(pool)

        module.Pool.terminate = terminate


def let_idle_workers_leave(pool: Any, timeout_s: float) -> None:
    """Close a `multiprocessing` pool that has nothing to do, and wait until its workers have left.

    For `timeout_s` at most. A pool with work in hand is left as it is, and so is one of threads, or of workers that are
    not measured (spawned without HUBSCOPE_INSTRUMENT_CHILDREN).
    """
    methods = {"fork", "spawn", "forkserver"} if settings.is_true(settings.INSTRUMENT_CHILDREN) else {"fork"}
    workers = [
        worker
        for worker in list(getattr(pool, "_pool", ()))  # another thread takes out those that have left
        if getattr(getattr(worker, "_popen", None), "method", "") in methods
        and getattr(worker, "_parent_pid", None) == os.getpid()
    ]
    if not workers or getattr(pool, "_cache", True):
        return
    from multiprocessing.connection import wait

    pool.close()
    deadline = time.monotonic() + timeout_s
    left = {worker.sentinel for worker in workers}
    while left and (remaining := deadline - time.monotonic()) > 0:
        left.difference_update(wait(list(left), remaining))


def start_afresh_in_children(meter_provider: Any, exporters: Callable[[], Iterable[Any]]) -> None:
    """A child's metrics begin at zero, and it does not write into its parent's connections.

    The SDK forks its sums with the process: each of eight workers would send the parent's start and tasks again.
    """

    def afresh() -> None:
        forget_sums(meter_provider)
        for exporter in exporters():
            reconnect(exporter)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=afresh)


def forget_sums(meter_provider: Any) -> bool:
    """Drop what was counted so far; whether it was done. Nothing is touched where the SDK's names are unknown.

    The names are those of SDK 1.40 to 1.45: `_measurement_consumer` with `_lock` and `_reader_storages`, each of these
    with `_lock` and `_instrument_view_instrument_matches`, and `_export_lock` of a reader that exports.
    Locks are made anew: a thread that is not in the child may have held one.
    """
    consumer = getattr(meter_provider, "_measurement_consumer", None)
    storages = getattr(consumer, "_reader_storages", None)
    if type(getattr(consumer, "_lock", None)) is not _LOCK or not isinstance(storages, dict):
        return False
    for storage in storages.values():
        matches = getattr(storage, "_instrument_view_instrument_matches", None)
        if type(getattr(storage, "_lock", None)) is not _RLOCK or type(matches) is not dict:
            return False
    consumer._lock = threading.Lock()  # type: ignore[union-attr]
    for reader, storage in storages.items():
        storage._lock = threading.RLock()
        storage._instrument_view_instrument_matches = {}
        if type(getattr(reader, "_export_lock", None)) is _LOCK:
            reader._export_lock = threading.Lock()
    return True


def reconnect(exporter: Any) -> None:
    """New connection pools for an OTLP/HTTP exporter: two processes that write on one connection garble both.

    Its session is found as SDK 1.40 to 1.45 keep it; one with other adapters than those of requests is left alone.
    """
    requests: Any = sys.modules.get("requests.adapters")
    client = getattr(exporter, "_client", None)
    for holder in (exporter, client, getattr(client, "_transport", None)):
        adapters = getattr(getattr(holder, "_session", None), "adapters", {})
        for prefix, adapter in list(adapters.items()):
            if requests is not None and type(adapter) is requests.HTTPAdapter:
                _inherited.append(adapter)
                adapters[prefix] = copy.copy(adapter)  # made for pickling: the same options, no connection
