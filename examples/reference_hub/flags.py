"""The five known inefficiencies of version 1. Each is a flag of its own; version 2 has none of them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Flags:
    """Which inefficiencies are on. All of them do real work of a kind that is found in real applications."""

    n_plus_one: bool = False
    no_index: bool = False
    eager_import: bool = False
    slow_plugin: bool = False
    small_cache: bool = False

    def names(self) -> tuple[str, ...]:
        """The flags that are on, as the command line writes them: `--n-plus-one`, …"""
        return tuple(_option(field.name) for field in fields(self) if getattr(self, field.name))


# flag -> what it does, as `--help` shows it
MEANING: dict[str, str] = {
    "n_plus_one": "fetch the memories that a search recalled one by one instead of in one query",
    "no_index": "browse memories without the index on persona, kind and importance: every page reads the whole table",
    "eager_import": "import scipy.stats at start, although only the statistics page uses it",
    "slow_plugin": "compare recalled texts letter by letter, each with each, to find near-duplicates",
    "small_cache": "keep 6 package profiles in the cache instead of 256",
}

PRESETS: dict[str, Flags] = {
    "1": Flags(n_plus_one=True, no_index=True, eager_import=True, slow_plugin=True, small_cache=True),
    "2": Flags(),
}


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--version-preset` and one option for each flag."""
    group = parser.add_argument_group("known inefficiencies")
    group.add_argument(
        "--version-preset",
        choices=sorted(PRESETS),
        default="2",
        help="1: all of the flags below, 2: none of them (default: 2); single flags add to it",
    )
    for name, meaning in MEANING.items():
        group.add_argument(_option(name), action="store_true", help=meaning)


def from_arguments(arguments: argparse.Namespace) -> Flags:
    """The preset's flags and those given one by one, together."""
    preset = PRESETS[arguments.version_preset]
    return Flags(**{name: getattr(preset, name) or getattr(arguments, name) for name in MEANING})
