"""Reading the configuration file: YAML, JSON or TOML, with environment variables put in (`variables`)."""

from __future__ import annotations

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
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(
                f"{path}: is not TOML: {error}", "mend the file, or name it .yaml if it is YAML"
            ) from error
    if suffix in (".yaml", ".yml", ".json"):
        import yaml

        try:
            return yaml.safe_load(content)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
            reason = getattr(error, "problem", None) or str(error).splitlines()[0]
            raise ConfigError(f"{path}: is not YAML: {where}{reason}", "mend the file") from error
    raise ConfigError(f"{path}: must be named .yaml, .yml, .json or .toml", "the name says how the file is read")
