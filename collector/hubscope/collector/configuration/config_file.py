"""Reading the configuration file: YAML or TOML, and `${env:NAME}` as the stock Collector has it.

`${env:NAME}` and `${NAME}` give the variable, `${env:NAME:-text}` the text where it is not set, `$$` one dollar. Unlike
the stock Collector, which takes an unset variable as empty and warns, it is a problem here: an address that silently
becomes empty is found much later.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hubscope.errors import ConfigError

_REFERENCE: Final = re.compile(r"\$\$|\$\{(?:(?P<scheme>[a-z]+):)?(?P<name>[^}:]*)(?P<default>:-[^}]*)?\}")
_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


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
    substituted: dict[str, Any] = _substitute(raw, "", environment, problems)
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


def _substitute(node: Any, path: str, environment: Mapping[str, str], problems: list[str]) -> Any:
    if isinstance(node, dict):
        return {
            str(key): _substitute(value, f"{path}.{key}" if path else str(key), environment, problems)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [_substitute(value, f"{path}[{i}]", environment, problems) for i, value in enumerate(node)]
    if not isinstance(node, str) or "$" not in node:
        return node

    def value_of(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        name = found["name"]
        if found["scheme"] not in (None, "env") or not _NAME.fullmatch(name):
            problems.append(f"{path}: {found[0]} is not a variable; write ${{env:NAME}}, or $$ for a dollar")
        elif name in environment:
            return environment[name]
        elif found["default"] is not None:
            return found["default"][2:]
        else:
            problems.append(f"{path}: the variable {name} is not set; set it, or write ${{env:{name}:-default}}")
        return found[0]

    return _REFERENCE.sub(value_of, node)
