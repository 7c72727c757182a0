"""Reading the configuration file: YAML, JSON or TOML, with environment variables put in (`variables`)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubscope.collector.configuration.variables import resolve
from hubscope.errors import ConfigError


def read_config(path: str, environment: Mapping[str, str], problems: list[str]) -> dict[str, Any]:
    """The file as nested tables, variables put in. What cannot be put in is added to `problems` with its path.

    Raises ConfigError for a file that cannot be read at all.
    """
    try:
        content = Path(path).read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "--config names the configuration file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start})", "save it as UTF-8") from error
    if (
        not content.strip()
    ):  # an editor or a copy empties a file before it writes it: a reload then took all tokens away
        raise ConfigError(f"{path}: is empty", "write {} (or a comment) where nothing is to be set, or mend the file")
    raw = _parse(path, content)
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{path}: must hold keys and values, got {type(raw).__name__}", "see `hubscope collect --help`"
        )
    substituted: dict[str, Any] = resolve(raw, "", environment, problems)
    return substituted


def _parse(path: str, content: str) -> Any:
    suffix = Path(path).suffix.lower()
    if suffix == ".toml":
        try:
            return tomllib.loads(content)
        except RecursionError as error:
            raise ConfigError(f"{path}: is nested too deep", "mend the file") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(
                f"{path}: is not TOML: {_twice(content, str(error))}{error}",
                "mend the file, or name it .yaml if it is YAML",
            ) from error
    if suffix in (".yaml", ".yml", ".json"):
        import yaml

        from hubscope.collector.configuration.strict_yaml import load

        try:
            return load(content)
        except RecursionError as error:
            raise ConfigError(f"{path}: is nested too deep", "mend the file") from error
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
            reason = getattr(error, "problem", None) or str(error).splitlines()[0]
            raise ConfigError(f"{path}: is not YAML: {where}{reason}", "mend the file") from error
    raise ConfigError(f"{path}: must be named .yaml, .yml, .json or .toml", "the name says how the file is read")


def _twice(content: str, problem: str) -> str:
    """The path of a key that tomllib found to stand twice; it says the line alone."""
    found = re.search(r"^Cannot (?:overwrite|declare|mutate).*at line (\d+)", problem)
    if found is None:
        return ""
    lines = content.splitlines()[: int(found[1])]
    table = next((line.strip().strip("[]") for line in reversed(lines[:-1]) if line.lstrip().startswith("[")), "")
    key = lines[-1].strip()
    if key.startswith("["):
        return f"{key.split('#')[0].strip().strip('[]')} stands twice: "
    return f"{table + '.' if table else ''}{key.partition('=')[0].strip()} stands twice: "
