"""`/metrics/kpis` as the front answers it: the file that the worker wrote last, in the format that is asked for."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from typing import Final, NamedTuple

from hubscope.collector.scrape.exposition import OPENMETRICS, PLAIN, wants_openmetrics

PLAIN_FILE: Final = "kpis.prom"
OPENMETRICS_FILE: Final = "kpis.openmetrics"


class Answer(NamedTuple):
    """Status, content type, body, and further headers."""

    code: int
    content_type: str
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


async def kpis(state_dir: Path, accept: str, accept_encoding: str, worker_age_s: float, dead_s: float) -> Answer:
    """The page, read and compressed off the event loop. 503 where the worker is dead: old values are not new ones."""
    if worker_age_s > dead_s:
        return Answer(503, PLAIN, f"# the worker has not spoken for {worker_age_s:.0f} s\n".encode())
    openmetrics = wants_openmetrics(accept)
    return await asyncio.to_thread(_read, state_dir, openmetrics, _takes_gzip(accept_encoding))


def _read(state_dir: Path, openmetrics: bool, compress: bool) -> Answer:
    content_type = OPENMETRICS if openmetrics else PLAIN
    headers: list[tuple[bytes, bytes]] = [(b"vary", b"Accept, Accept-Encoding")]
    try:
        body = (state_dir / (OPENMETRICS_FILE if openmetrics else PLAIN_FILE)).read_bytes()
    except FileNotFoundError:  # the worker has only just begun
        body = b"# EOF\n" if openmetrics else b""
    if compress:
        body = gzip.compress(body, 1, mtime=0)
        headers.append((b"content-encoding", b"gzip"))
    return Answer(200, content_type, body, tuple(headers))


def _takes_gzip(accept_encoding: str) -> bool:
    for part in accept_encoding.lower().split(","):
        coding, _, parameter = part.partition(";")
        if coding.strip() in ("gzip", "x-gzip", "*"):
            return parameter.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
