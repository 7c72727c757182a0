"""YAML as a configuration needs it: a key stands once, and aliases cannot make a small file large.

`yaml.safe_load` takes the last of two equal keys without a word. And 300 bytes of aliases to lists of aliases stand for
a billion values, which whoever walks them never finishes.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final

import yaml

MAX_VALUES: Final = 100_000  # with every alias written out; the largest real configuration has hundreds
MAX_DEPTH: Final = 100


def load(content: str) -> Any:
    """The document's values. Raises yaml.MarkedYAMLError with the place and the path of what is wrong."""
    loader = _Loader(content)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, "", {}, ())
        return loader.construct_document(node)
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """The safe one: plain values only. `12:30:00` stays the text that it looks like: YAML 1.1 makes 45,000 of it."""


def _number(loader: _Loader, node: yaml.ScalarNode) -> Any:
    if ":" in node.value:
        return node.value
    is_whole = node.tag == "tag:yaml.org,2002:int"
    return loader.construct_yaml_int(node) if is_whole else loader.construct_yaml_float(node)


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _number)


def _count(node: yaml.Node, path: str, known: dict[int, int], above: tuple[int, ...]) -> int:
    """How many values the node stands for, aliases written out; each node is looked at once."""
    if id(node) in above:
        raise _error(node, path, "is an alias of what it stands in, which has no end")
    if len(above) > MAX_DEPTH:
        raise _error(node, path, f"is more than {MAX_DEPTH} levels deep")
    if id(node) in known:
        return known[id(node)]
    above = (*above, id(node))
    count = 1
    if isinstance(node, yaml.SequenceNode):
        for index, member in enumerate(node.value):
            count += _count(member, f"{path}[{index}]", known, above)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[Hashable, int] = {}
        for key, value in node.value:
            place = key.value if isinstance(key, yaml.ScalarNode) else "?"
            inner = f"{path}.{place}" if path else str(place)
            same = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)
            if same in lines and key.tag != "tag:yaml.org,2002:merge":
                raise _error(key, inner, f"stands twice, first in line {lines[same]}: remove one")
            lines[same] = key.start_mark.line + 1
            count += _count(value, inner, known, above)
    if count > MAX_VALUES:
        raise _error(node, path, f"stands for more than {MAX_VALUES} values, its aliases written out")
    known[id(node)] = count
    return count


def _error(node: yaml.Node, path: str, problem: str) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, f"{path or 'the file'}: {problem}", node.start_mark)
