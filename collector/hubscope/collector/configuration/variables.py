"""Environment variables in a configuration, as the stock Collector resolves them (its docs/rfcs/env-vars.md).

`${env:NAME}` and `${NAME}` are the variable; `${env:NAME:-text}` is the text where the variable is not set (one that is
empty is set); `$$` is one dollar. References may stand inside each other and inside a variable's value. A value that
is one reference as a whole takes the type that YAML gives the variable's text: a number, true, a list, a table; as a
text it keeps the characters that were written (0123 stays 0123; "0123" and `!!str 0123` lose what marks them). Inside
a longer text it is always a text.

Two things are an error here that the stock Collector only warns of: a variable that is not set and has no default,
which there becomes empty and is found much later, and a name that is none (`${1}`), which there stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

# The innermost reference: there is none inside it.
_REFERENCE: Final = re.compile(r"\$\{(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?!-))?(?P<rest>[^$}]*)\}")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_MAX_STEPS: Final = 1000  # as the stock Collector: a variable that holds itself
_DOLLAR: Final = "\0"  # stands for `$$` until everything is resolved; no variable can hold it


class Scalar(str):
    """The text of a variable that stood alone, with what YAML reads in it."""

    value: Any

    def __new__(cls, text: str, value: Any) -> Scalar:
        found = super().__new__(cls, text)
        found.value = value
        return found


def resolve(node: Any, path: str, environment: Mapping[str, str], problems: list[str]) -> Any:
    """The node with its variables put in; what cannot be put in is added to `problems` with its path."""
    if isinstance(node, dict):
        return {
            str(key): resolve(value, f"{path}.{key}" if path else str(key), environment, problems)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [resolve(value, f"{path}[{i}]", environment, problems) for i, value in enumerate(node)]
    if not isinstance(node, str) or "$" not in node:
        return node
    return _text(node, path, environment, problems)


def _text(node: str, path: str, environment: Mapping[str, str], problems: list[str]) -> Any:
    text = node.replace("$$", _DOLLAR)
    for _ in range(_MAX_STEPS):
        found = _REFERENCE.search(text)
        if found is None:
            if "${" in text:
                problems.append(f"{path}: {_shown(node)} has a reference without an end; write $$ for a dollar")
            return text.replace(_DOLLAR, "$")
        value, problem = _lookup(found, environment)
        if problem is not None:
            problems.append(f"{path}: {problem}")
            return node
        value = value.replace("$$", _DOLLAR)
        if found.span() == (0, len(text)) and not _REFERENCE.search(value):
            return _typed(value.replace(_DOLLAR, "$"))
        text = text[: found.start()] + _untyped(value) + text[found.end() :]
    problems.append(f"{path}: {_shown(node)} is not resolved after {_MAX_STEPS} steps; does a variable hold itself?")
    return node


def _lookup(found: re.Match[str], environment: Mapping[str, str]) -> tuple[str, str | None]:
    """(value, problem) of one reference."""
    name, colon, default = found["rest"].partition(":-")
    if found["scheme"] not in (None, "env") or not _NAME.fullmatch(name):
        return "", f"{found[0].replace(_DOLLAR, '$$')} is not a variable; write ${{env:NAME}}, or $$ for a dollar"
    if name in environment:
        return environment[name], None
    if colon:
        return default, None
    return "", f"the variable {name} is not set; set it, or write ${{env:{name}:-default}}"


def _typed(text: str) -> Any:
    """A list or table as such; anything else as its text, beside what YAML reads in it."""
    value = _yaml(text)
    if isinstance(value, list | dict):
        return value
    return Scalar(value if isinstance(value, str) else text, value)


def _untyped(text: str) -> str:
    """The text inside a longer one: without the quotes or the tag that mark it as a text."""
    value = _yaml(text) if text[:1] in ('"', "'", "!") else text
    return value if isinstance(value, str) else text


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # ValueError: a date that is none
        return text  # a text that is no YAML is a text


def _shown(text: str) -> str:
    return repr(text)[:80]  # as it stands in the file: what was put in may be a secret
